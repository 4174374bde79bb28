package receiver

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/oss"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// TestReconcileOnSchedule has a receiver find an upload that was issued, and that no one told of. On a busy machine
// a run may fail; then the clock moves to when the next is made. After one that succeeds, none is due.
func TestReconcileOnSchedule(t *testing.T) {
	t.Parallel()
	emulator, url := ossfake.Start(t), dbtest.URL(t)
	user := ossclient.New(emulator, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	if _, err := user.PutObject(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr(ossfake.Bucket), Key: sdk.Ptr("lost.txt"),
		Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
	dbtest.Execute(t, url, `INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, vars)
		VALUES (gen_random_uuid(), now() - interval '1 minute', now() + interval '1 hour', 'demo', 'lost.txt', '{"uid":"42"}')`)
	var ahead atomic.Int64
	receiver := start(t, Config{DatabaseURL: url, Admission: admission.Config{Buckets: []string{ossfake.Bucket}},
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Reconcile: ReconcileConfig{Every: 24 * time.Hour, Grace: -1, OSS: oss.Config{Region: ossfake.Region, Endpoint: emulator,
			AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret}}})
	failed := 0
	wait.Until(t, "a run is done, and metrics tell of it", func() bool {
		_, text := servetest.Get(t, receiver.Admin+"/metrics")
		if strings.Contains(text, fmt.Sprintf("upcall_reconcile_runs_total{result=\"failed\"} %d\n", failed+1)) {
			failed++
			ahead.Add(int64(10 * time.Minute))
			t.Logf("run %d failed", failed)
		}
		return strings.Contains(text, `upcall_reconcile_objects{bucket="demo",state="recovered"} 1`) &&
			strings.Contains(text, `upcall_reconcile_runs_total{result="done"} 1`) &&
			strings.Contains(text, `upcall_upload_known_seconds_count{source="reconcile"} 1`)
	})
	var n int
	err := dbtest.Open(t, url, eventstore.Open).QueryRow(t.Context(), `SELECT count(*) FROM upcall.upload_events
		WHERE source = 'reconcile' AND object_key = 'lost.txt' AND vars->>'uid' = '42' AND upload_id IS NOT NULL`).Scan(&n)
	if err != nil || n != 1 {
		t.Errorf("%d events are recorded, %v; want 1", n, err)
	}
}

func TestReconcileConfig(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		every   time.Duration
		buckets []string
		want    string // in the error; "" is none
	}{
		"off":        {0, nil, ""},
		"daily":      {24 * time.Hour, []string{"photos"}, ""},
		"too often":  {time.Second, []string{"photos"}, "UPCALL_RECONCILE_EVERY: 1s is less than 1m0s"},
		"negative":   {-time.Hour, []string{"photos"}, "UPCALL_RECONCILE_EVERY: -1h0m0s is less than"},
		"no buckets": {24 * time.Hour, nil, "UPCALL_BUCKETS: is empty"},
	} {
		err := Config{Reconcile: ReconcileConfig{Every: tt.every}, Admission: admission.Config{Buckets: tt.buckets}}.checkReconcile()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

package receiver

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/testing/servetest"
)

// TestIdleWaitsForNotifications: a receiver is idle once a notification that waits for its callback has become an
// event, and roll-ups have counted that.
func TestIdleWaitsForNotifications(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool := dbtest.Open(t, url, eventstore.Open)
	exec := func(sql string) {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
		VALUES (gen_random_uuid(), now(), now(), 'bbb', 'a')`)
	notify := `INSERT INTO upcall.notifications (id, received_at, bucket, object_key, vars, source, noticed_at)
		VALUES (gen_random_uuid(), now(), 'bbb', 'a', '{}', 'notification', now())`
	key := viewerKey(t, url)

	s := start(t, Config{DatabaseURL: url, NotifyGrace: time.Hour})
	exec(notify)
	status, text := servetest.Do(t, request(t, s.Admin+"/v1/idle?wait=1s", key))
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "notifications: 1, the first since ") {
		t.Errorf("while one waits: %d %s", status, text)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	s = start(t, Config{DatabaseURL: url})
	status, text = servetest.Do(t, request(t, s.Admin+"/v1/idle?wait=30s", key))
	if status != http.StatusOK {
		t.Errorf("idle: %d %s", status, text)
	}
	var counted int
	if err := pool.QueryRow(t.Context(), "SELECT sum(by_notification) FROM upcall.upload_loss").Scan(&counted); err != nil || counted != 1 {
		t.Errorf("idle, but %d are counted, %v", counted, err)
	}
	if n := s.Metric(t, `upcall_upload_known_seconds_count{source="notification"}`); n != 1 {
		t.Errorf("%v are in the metric", n)
	}
}

func TestCheckGrace(t *testing.T) {
	t.Parallel()
	for grace, fits := range map[time.Duration]bool{
		-1: false, 0: true, DefaultNotifyGrace: true, 24 * time.Hour: true, 24*time.Hour + 1: false,
	} {
		err := checkGrace(grace)
		var f fault.Fault
		if fits != (err == nil) || err != nil && (!errors.As(err, &f) || f.Field != "UPCALL_NOTIFY_GRACE") {
			t.Errorf("%s: got %v", grace, err)
		}
	}
}

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/issue"
	"upcall/internal/notify"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/receiver"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
	"upcall/internal/uploadtoken"
)

// A notifiedRow is a row of upcall.notifications.
type notifiedRow struct {
	Operation, Key, ETag string
	Size                 *int64
	UploadID, UID        *string
}

// TestNotificationsArrive has the emulator push what the receiver accepts, in each format: the two are
// written after the same documents, and nothing else holds them together.
func TestNotificationsArrive(t *testing.T) {
	t.Parallel()
	for _, format := range []string{ossemu.NotifyXML, ossemu.NotifyJSON, ossemu.NotifySimplified} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			database, public := dbtest.URL(t), servetest.Listen(t)
			address := public.Addr().String()
			public.Close() // the receiver is not there yet: the first pushes are repeated
			w := newWorld(t, func(c *ossemu.Config) {
				c.NotifyURL, c.NotifyFormat, c.NotifyTopic = "http://"+address+"/oss/notify", format, "59/uploads"
				c.After = func(time.Duration) <-chan time.Time { return time.After(2 * time.Second) }
			})
			issued, _, err := w.issuer(t).Issue(t.Context(), issue.Request{
				Object: oss.Object{Bucket: ossfake.Bucket, Key: "photos/猫 1.jpg"}, Expires: time.Hour,
				Callback: &issue.CallbackSpec{URLs: []string{"http://127.0.0.1:9/lost"}, Vars: map[string]string{"uid": "42"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if status, body := send(t, issued.Request()); status != 203 {
				t.Fatalf("%d %s", status, body)
			}
			serveNotified(t, address, database, w.gate.URL+ossemu.PublicKeyPath, w.emulator+ossemu.PublicKeyPath)
			remove := &sdk.DeleteObjectRequest{Bucket: sdk.Ptr(ossfake.Bucket), Key: sdk.Ptr("photos/猫 1.jpg")}
			if _, err := w.client().DeleteObject(t.Context(), remove); err != nil {
				t.Fatal(err)
			}

			var rows []notifiedRow
			wait.Until(t, "both notifications are there", func() bool {
				rows = query[notifiedRow](t, database, `SELECT operation, object_key, etag, size, upload_id::text, vars->>'uid'
					FROM upcall.notifications ORDER BY operation DESC`)
				return len(rows) == 2
			})
			id, uid, size := issued.ID.String(), "42", int64(len("hello world"))
			const etag = "5EB63BBBE01EEED093CB22BB8F5ACDC3"
			want := []notifiedRow{{"PutObject", "photos/猫 1.jpg", etag, &size, &id, &uid},
				{"DeleteObject", "photos/猫 1.jpg", etag, nil, nil, nil}}
			rows[1].Size = nil // the size of what was removed means nothing
			if d := cmp.Diff(want, rows); d != "" {
				t.Error(d)
			}
		})
	}
}

// serveNotified runs a receiver of notifications at an address.
func serveNotified(t *testing.T, address, database string, keyURLs ...string) {
	t.Helper()
	keys, err := uploadtoken.ParseKeys(failoverKeys)
	if err != nil {
		t.Fatal(err)
	}
	cfg := receiver.Config{DatabaseURL: database, TrustKeyURLs: keyURLs, Admission: admission.Config{Tokens: keys},
		Notify: notify.Config{Topics: []notify.Topic{{Owner: "59", Name: "uploads"}}}, Logger: slog.New(slog.DiscardHandler)}
	servetest.Start(t, func(ctx context.Context, _, admin net.Listener) error {
		public, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		return receiver.Run(ctx, cfg, public, admin)
	})
}

// query returns the rows of a query.
func query[T any](t *testing.T, database, sql string) []T {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	rows, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

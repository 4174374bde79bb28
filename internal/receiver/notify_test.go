package receiver

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/notify"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
	"upcall/internal/uploadtoken"
)

// A notified receiver has an emulator that pushes notifications to it.
type notified struct {
	*servetest.Service
	databaseURL, emulator string
	ahead                 atomic.Int64 // of the receiver's clock, in nanoseconds
}

func startNotified(t *testing.T, databaseURL, format string, change func(*Config)) *notified {
	t.Helper()
	keys, err := uploadtoken.ParseKeys("k1:0123456789abcdef") // those of put
	if err != nil {
		t.Fatal(err)
	}
	// Each needs the URL of the other.
	var emulator http.Handler
	n := &notified{databaseURL: databaseURL}
	n.emulator = ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { emulator.ServeHTTP(w, r) }))
	cfg := Config{
		DatabaseURL: databaseURL, TrustKeyURLs: []string{n.emulator + ossemu.PublicKeyPath}, SpoolMinFreeBytes: -1,
		Admission: admission.Config{Tokens: keys, Buckets: []string{ossfake.Bucket}}, Logger: slog.New(slog.DiscardHandler),
		Notify: notify.Config{Path: "/oss/notify",
			Topics: []notify.Topic{{Owner: "1", Name: "x"}, {Owner: "1000000000000001", Name: "ossemu"}}},
		Now: func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) },
	}
	if change != nil {
		change(&cfg)
	}
	n.Service = servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error { return Run(ctx, cfg, public, admin) })
	emulator = ossfake.NewEmulator(t, func(c *ossemu.Config) {
		c.NotifyURL, c.NotifyFormat = n.Public+"/oss/notify?a=b", format
	})
	return n
}

// upload uploads through the emulator, whose callback is lost, and returns the push of its notification.
func (n *notified) upload(t *testing.T) ossemu.Delivery {
	t.Helper()
	n.faults(t, `{"drop":true}`)
	put(t, n.emulator, n.Public+"/oss/callback")
	var pushes []ossemu.Delivery
	wait.Until(t, "the notification is pushed", func() bool {
		_, text := servetest.Get(t, n.emulator+"/_ossemu/notifications?object=a.txt")
		if err := json.Unmarshal([]byte(text), &pushes); err != nil {
			t.Fatal(err)
		}
		return len(pushes) > 0
	})
	return pushes[0]
}

func (n *notified) faults(t *testing.T, faults string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, n.emulator+"/_ossemu/faults", strings.NewReader(faults))
	if err != nil {
		t.Fatal(err)
	}
	if code, text := servetest.Do(t, r); code != http.StatusOK && code != http.StatusNoContent {
		t.Fatalf("faults: %d %s", code, text)
	}
}

// again pushes what the emulator has pushed once more.
func (n *notified) again(t *testing.T, d ossemu.Delivery, change func(*http.Request), body string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.Public+d.Target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range d.Header {
		for _, value := range values {
			r.Header.Add(name, value)
		}
	}
	if change != nil {
		change(r)
	}
	code, _ := servetest.Do(t, r)
	return code
}

// lines returns the rows of a query as text.
func (n *notified) lines(t *testing.T, query string) string {
	t.Helper()
	pool, err := eventstore.Open(t.Context(), n.databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	rows, err := pool.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "; ")
}

const noticed = `SELECT concat_ws(' ', bucket, object_key, operation, size, upload_id IS NOT NULL, source,
	abs(extract(epoch FROM received_at - noticed_at)) < 60) FROM upcall.notifications`

// TestNotifications has the emulator push a notification in each format to a receiver with a real
// database, and then sends what forgers and repeaters make of it.
func TestNotifications(t *testing.T) {
	t.Parallel()
	for _, format := range []string{ossemu.NotifyXML, ossemu.NotifyJSON, ossemu.NotifySimplified} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			n := startNotified(t, dbtest.URL(t), format, nil)
			d := n.upload(t)
			if d.Status != http.StatusNoContent {
				t.Fatalf("answered %d %s", d.Status, d.Answer)
			}
			if got, want := n.lines(t, noticed), "demo a.txt PutObject 5 t notification t"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			header := func(name, value string) func(*http.Request) {
				return func(r *http.Request) { r.Header.Set(name, value) }
			}
			for _, forged := range []struct {
				reason string
				change func(*http.Request)
				body   string
			}{
				{"signature_padding", header("Authorization", strings.Repeat("A", 86)+"=="), d.Body},
				{"signature_missing", func(r *http.Request) { r.Header.Del("Authorization") }, d.Body},
				{"body_mismatch", nil, d.Body + " "},
				{"digest_mismatch", header("X-Mns-Topic-Name", "x"), d.Body},
				{"digest_mismatch", header("Date", time.Now().Add(time.Second).UTC().Format(http.TimeFormat)), d.Body + "\n"},
				{"cert_url_untrusted", header("X-Mns-Signing-Cert-Url", "aHR0cDovL2V2aWwuZXhhbXBsZS8="), d.Body},
				{"bridge_token", header("X-Eventbridge-Signature-Token", "x"), d.Body},
			} {
				if code := n.again(t, d, forged.change, forged.body); code != http.StatusForbidden {
					t.Errorf("%s: answered %d", forged.reason, code)
				}
			}
			if code := n.again(t, d, nil, d.Body); code != http.StatusNoContent {
				t.Errorf("a repeat: answered %d", code)
			}
			n.ahead.Store(int64(16 * time.Minute))
			if code := n.again(t, d, nil, d.Body); code != http.StatusForbidden {
				t.Errorf("a replay: answered %d", code)
			}
			const reasons = "SELECT reason || ' ' || count(*) FROM upcall.refused_callbacks GROUP BY reason ORDER BY reason"
			want := "body_mismatch 1; bridge_token 1; cert_url_untrusted 1; date_expired 1; digest_mismatch 2; " +
				"signature_missing 1; signature_padding 1"
			wait.Until(t, "the refusals are kept", func() bool { return n.lines(t, reasons) == want })
			for name, want := range map[string]float64{
				`upcall_notifications_total{result="recorded"}`: 1, `upcall_notifications_total{result="duplicate"}`: 1,
				`upcall_notification_refusals_total{reason="date_expired"}`:    1,
				`upcall_notification_refusals_total{reason="digest_mismatch"}`: 2,
			} {
				if got := n.Metric(t, name); got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
			if got := n.lines(t, "SELECT count(*)::text FROM upcall.notifications"); got != "1" {
				t.Errorf("%s rows", got)
			}
		})
	}
}

// TestForeignTopic has the emulator push from a topic that is not the receiver's, with the same key.
func TestForeignTopic(t *testing.T) {
	t.Parallel()
	n := startNotified(t, dbtest.URL(t), "", func(cfg *Config) { cfg.Notify.Topics = cfg.Notify.Topics[:1] })
	if d := n.upload(t); d.Status != http.StatusForbidden {
		t.Errorf("answered %d", d.Status)
	}
	want := "topic_foreign demo a.txt"
	wait.Until(t, "the refusal is kept", func() bool {
		return n.lines(t, "SELECT concat_ws(' ', reason, bucket, object_key) FROM upcall.refused_callbacks") == want
	})
}

// TestNotificationsOff checks that without settings there is nothing at their path.
func TestNotificationsOff(t *testing.T) {
	t.Parallel()
	n := startNotified(t, dbtest.URL(t), "", func(cfg *Config) { cfg.Notify = notify.Config{Path: "/oss/notify"} })
	if d := n.upload(t); d.Status != http.StatusNotFound {
		t.Errorf("answered %d", d.Status)
	}
}

// TestNotificationsSpooled kills PostgreSQL: a notification is acknowledged by the spool, and once
// PostgreSQL is back, it is there once, however often it came.
func TestNotificationsSpooled(t *testing.T) {
	t.Parallel()
	database := dbtest.NewServer(t)
	n := startNotified(t, database.URL(), "", func(cfg *Config) { cfg.SpoolDir = t.TempDir() })
	wait.Until(t, "it is ready", func() bool { return status(t, n.Admin+"/readyz") == 200 })
	database.Kill(t)
	d := n.upload(t)
	if d.Status != http.StatusNoContent || d.Duration > int64(notify.Deadline/time.Millisecond) {
		t.Errorf("answered %d after %d ms", d.Status, d.Duration)
	}
	if got := n.Metric(t, `upcall_notifications_total{result="spooled"}`); got != 1 {
		t.Errorf("%v were spooled", got)
	}
	if code := n.again(t, d, nil, d.Body); code != http.StatusNoContent {
		t.Errorf("a repeat: answered %d", code)
	}
	database.Restart(t)
	wait.Until(t, "the spool is drained", func() bool { return n.Metric(t, "upcall_spool_depth") == 0 })
	if code := n.again(t, d, nil, d.Body); code != http.StatusNoContent {
		t.Errorf("a repeat afterwards: answered %d", code)
	}
	if got, want := n.lines(t, noticed), "demo a.txt PutObject 5 t notification t"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := n.Metric(t, `upcall_notifications_total{result="duplicate"}`); got != 2 {
		t.Errorf("%v were duplicates", got)
	}
}

// TestNotificationUnavailable checks that without PostgreSQL and without a spool nothing is acknowledged.
func TestNotificationUnavailable(t *testing.T) {
	t.Parallel()
	n := startNotified(t, "postgres://nobody@127.0.0.1:1/none", "", nil)
	d := n.upload(t)
	if d.Status != http.StatusServiceUnavailable || !strings.Contains(d.Answer, "unavailable") {
		t.Errorf("answered %d %s", d.Status, fmt.Sprint(d.Answer))
	}
}

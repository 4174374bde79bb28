package e2e

import (
	"math"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/wait"
)

// receiver runs a command of the receiver and returns its standard output.
func (w *lostWorld) receiver(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "receiver"), args...)
	cmd.Env = w.env
	stdout, stderr, status := output(t, cmd)
	if status != 0 {
		t.Fatalf("%v: status %d: %s", args, status, stderr)
	}
	return stdout
}

// idle waits until everything that has happened was recorded and told.
func (w *lostWorld) idle(t *testing.T, key string) {
	t.Helper()
	wait.Until(t, "the receiver is idle", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.admin+"/v1/idle?wait=5s", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// A logged is a row of upcall.upload_log.
type logged struct {
	event       uuid.UUID
	source, uid string
}

// log returns the rows of the view by upload id, which each has once.
func (w *lostWorld) log(t *testing.T) map[string]logged {
	t.Helper()
	found := make(map[string]logged)
	for _, row := range query[struct {
		UploadID string
		Event    uuid.UUID
		Source   string
		UID      *string
	}](t, w.database, "SELECT upload_id::text, id, source, vars->>'uid' FROM upcall.upload_log") {
		if _, twice := found[row.UploadID]; twice || row.UID == nil {
			t.Errorf("upload %s is there twice, or without its variable", row.UploadID)
			continue
		}
		found[row.UploadID] = logged{row.Event, row.Source, *row.UID}
	}
	return found
}

// check compares the log, the hooks and upload_loss with what happened.
func (w *lostWorld) check(t *testing.T, all []*lostUpload, found map[string]logged, kills int) {
	t.Helper()
	if len(found) != len(all) {
		t.Errorf("%d rows for %d uploads", len(found), len(all))
	}
	sources := make(map[string]int)
	w.mu.Lock()
	for _, u := range all {
		row := found[u.id.String()]
		sources[row.source]++
		p := w.pushes[u.key()]
		taken := p != nil && p.taken
		// What was answered is there by its callback. A receiver that was killed may have recorded what
		// it did not answer, but nothing that was taken may be left for the listing.
		switch right := map[bool]string{true: "callback", false: "notification"}[u.answered]; {
		case row.uid != u.uid:
			t.Errorf("%s has uid %q", u.uid, row.uid)
		case u.answered && row.source != right, !u.answered && taken && row.source == "reconcile", u.noCallback && row.source == "callback",
			u.noNotification && row.source == "notification", u.noCallback && u.noNotification && row.source != "reconcile",
			kills == 0 && !u.noNotification && row.source != right:
			t.Errorf("%s is known by %s: %+v, notification taken: %v", u.uid, row.source, *u, taken)
		}
		if !w.told[u.id.String()][row.event] {
			t.Errorf("%s was not told of: %v", u.uid, w.told[u.id.String()])
		}
		if kills == 0 && len(w.told[u.id.String()]) != 1 {
			t.Errorf("%s was told of as several events: %v", u.uid, w.told[u.id.String()])
		}
	}
	w.mu.Unlock()
	loss := query[struct {
		Received, ByNotification, ByReconcile int
		Share                                 float64
	}](t, w.database, `SELECT sum(received)::int, sum(by_notification)::int, sum(by_reconcile)::int,
		(sum(by_notification + by_reconcile) / sum(received + by_notification + by_reconcile))::float8
		FROM upcall.upload_loss WHERE bucket = '`+ossfake.Bucket+`'`)[0]
	lost := float64(sources["notification"]+sources["reconcile"]) / float64(len(all))
	if loss.Received != sources["callback"] || loss.ByNotification != sources["notification"] || loss.ByReconcile != sources["reconcile"] ||
		math.Abs(loss.Share-lost) > 1e-9 {
		t.Errorf("upload_loss has %+v, the log %v", loss, sources)
	}
	if n := len(all); kills == 0 && (loss.Received != n-n/3 || loss.ByNotification != n/3-n/30 || loss.ByReconcile != n/30) {
		t.Errorf("upload_loss has %+v of %d", loss, n)
	}
	t.Logf("%d uploads, %d kills: %+v", len(all), kills, loss)
}

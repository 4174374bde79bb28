package receiver

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/fault"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// TestPostgresStopsUnderLoad checks that callbacks are refused in time while PostgreSQL is
// unavailable, that the receiver recovers by itself, and that each callback answered 200 has a
// row.
func TestPostgresStopsUnderLoad(t *testing.T) {
	t.Parallel()
	database, keyURL := dbtest.NewServer(t), ossfake.KeyURL(t)
	receiver := start(t, Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL}})
	l := startLoad(t, receiver.Public, keyURL, 16, answered.unavailable)
	wait.Until(t, "callbacks are accepted", func() bool { return l.answers("postgres") >= 200 })
	database.Kill(t)
	wait.Until(t, "callbacks are refused", func() bool { return l.refusals() >= 50 })
	if got := status(t, receiver.Admin+"/readyz"); got != 503 {
		t.Errorf("readyz without PostgreSQL: %d", got)
	}
	database.Restart(t)
	before := l.answers("postgres")
	wait.Until(t, "callbacks are accepted again", func() bool { return l.answers("postgres") > before })
	l.stop()
	if err := receiver.Stop(); err != nil {
		t.Error(err)
	}
	if l.slowest > tooSlow {
		t.Errorf("the slowest answer took %s", l.slowest)
	}
	// A callback answered 503 may have a row, because it may have been committed just before
	// PostgreSQL stopped. A callback answered 200 must have one.
	wantRows(t, database.URL(), l.ids, l.refused)
}

func TestRefusesOldSchema(t *testing.T) {
	t.Parallel()
	err := mistake(t, Config{DatabaseURL: dbtest.Empty(t)})
	if !errors.Is(err, migrations.ErrTooOld) || !strings.Contains(err.Error(), "receiver migrate up") {
		t.Errorf("got %v, want ErrTooOld and the command to run", err)
	}
}

// TestStartsWithoutDatabase checks that the receiver is live, not ready, and refuses callbacks.
func TestStartsWithoutDatabase(t *testing.T) {
	t.Parallel()
	keyURL := ossfake.KeyURL(t)
	receiver := start(t, Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", TrustKeyURLs: []string{keyURL}})
	if got := call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId=1"); got.err != nil || !got.unavailable() {
		t.Errorf("got %+v", got)
	}
	if got := status(t, receiver.Admin+"/readyz"); got != 503 {
		t.Errorf("readyz: %d", got)
	}
	if got := status(t, receiver.Admin+"/livez"); got != 200 {
		t.Errorf("livez: %d", got)
	}
	if err := receiver.Stop(); err != nil {
		t.Error(err)
	}
}

func TestCheckReportsAllMistakes(t *testing.T) {
	t.Parallel()
	err := Config{
		Admission:    admission.Config{CallbackPaths: []string{"x"}, PublicURL: "y", TokenPolicy: "z"},
		TrustKeyURLs: []string{"w"}, SpoolMaxBytes: -1, RetentionDays: 1,
	}.Check()
	mistakes := fault.Of(err)
	want := []string{
		`callback path "x"`, `public URL "y"`, `token policy "z"`, `trusted key URL 1: "w"`, "spool limit of -1", "retention of 1 days",
	}
	for i, f := range mistakes {
		if i >= len(want) || !strings.Contains(f.Error(), want[i]) {
			t.Errorf("mistake %d is %q, want %q", i+1, f, want)
		}
	}
	if len(mistakes) != len(want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

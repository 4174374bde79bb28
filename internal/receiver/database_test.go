package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

const page = "../../docs/database.md"

// maintain makes the partitions of the months about now.
func maintain(t *testing.T, url string, now time.Time) {
	t.Helper()
	cfg := Config{DatabaseURL: url, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	if ahead, err := Maintain(t.Context(), cfg); ahead != 2 || err != nil {
		t.Fatalf("maintain: %d months ahead, %v", ahead, err)
	}
}

// partition returns the name of the partition that is so many months from now.
func partition(ahead int) string {
	now := time.Now().UTC()
	return time.Date(now.Year(), now.Month()+time.Month(ahead), 1, 0, 0, 0, 0, time.UTC).Format("upcall.upload_events_2006_01")
}

// TestDatabaseMistakes: what no waiting fixes is an error at the start that says what to do.
func TestDatabaseMistakes(t *testing.T) {
	t.Parallel()
	own := dbtest.URL(t)
	maintained := dbtest.URL(t)
	maintain(t, maintained, time.Now())
	grants := dbtest.Grants(t, page, "upcall_receiver")
	without := func(right string) []string {
		var rest []string
		for _, grant := range grants {
			if !strings.Contains(grant, right) {
				rest = append(rest, grant)
			}
		}
		return rest
	}
	nobody := dbtest.Role(t, maintained)
	for name, tt := range map[string]struct{ url, want string }{
		"wrong password":      {strings.Replace(nobody, ":secret@", ":hunter2@", 1), "set UPCALL_DATABASE_URL to postgres://USER:PASSWORD@"},
		"no such role":        {strings.Replace(nobody, "://", "://no", 1), "set UPCALL_DATABASE_URL to"},
		"no such database":    {strings.Replace(maintained, "/upcall_test_", "/no_", 1), "create it"},
		"no right at all":     {nobody, "GRANT USAGE ON SCHEMA upcall TO upcall_test_"},
		"no right to schema":  {dbtest.Role(t, maintained, without("SCHEMA")...), "run: GRANT USAGE ON SCHEMA upcall TO upcall_test_"},
		"no right to record":  {dbtest.Role(t, maintained, without("upload_events")...), "GRANT SELECT, INSERT ON upcall.upload_events TO upcall_test_"},
		"no right to refuse":  {dbtest.Role(t, maintained, without("refused_callbacks")...), "GRANT SELECT, INSERT, DELETE ON upcall.refused_callbacks TO"},
		"no right to look up": {dbtest.Role(t, maintained, without("schema_migrations")...), "GRANT SELECT ON upcall.revoked_uploads TO"},
		"no partitions":       {dbtest.Role(t, own, grants...), "run receiver maintain"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := mistake(t, Config{DatabaseURL: tt.url, SpoolDir: t.TempDir()})
			if !errors.Is(err, eventstore.ErrMistake) || !strings.Contains(err.Error(), tt.want) ||
				strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A logged receiver keeps its log.
func logged(t *testing.T, cfg Config) (*servetest.Service, func() string) {
	t.Helper()
	var mu sync.Mutex
	var log bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), nil))
	cfg.Admission.TokenPolicy = admission.TokenOff
	service := servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error { return Run(ctx, cfg, public, admin) })
	return service, func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestReady: a receiver that refuses every callback is not ready, says that PostgreSQL is
// away, and says so once.
func TestReady(t *testing.T) {
	t.Parallel()
	grants := dbtest.Grants(t, page, "upcall_receiver")
	for name, tt := range map[string]struct {
		owner           bool   // serve with the owner's role
		parameter       string // of the receiver's URL
		breaks, repairs string // statements while it runs, with ROLE for the receiver's role
		want            string // why it is not ready then
		records         bool   // all the same
		spools          bool   // it has a spool, which would make it ready
		answers         bool   // PostgreSQL is there, and only a callback shows what is wrong
	}{
		"owner":        {owner: true},
		"owns nothing": {},
		"read-only":    {owner: true, parameter: "default_transaction_read_only=on", want: "read-only transaction"},
		"right is taken": {breaks: "REVOKE INSERT ON upcall.callback_ids FROM ROLE", repairs: "GRANT INSERT ON upcall.callback_ids TO ROLE",
			want: "permission denied"},
		"table is gone": {breaks: "ALTER TABLE upcall.callback_ids RENAME TO gone", repairs: "ALTER TABLE upcall.gone RENAME TO callback_ids",
			want: "does not exist"},
		"column is gone": {breaks: "ALTER TABLE upcall.upload_events RENAME etag TO tag",
			repairs: "ALTER TABLE upcall.upload_events RENAME tag TO etag", want: "etag"},
		"no row fits": {breaks: `ALTER TABLE upcall.upload_events ADD COLUMN tenant text NOT NULL DEFAULT '';
			ALTER TABLE upcall.upload_events ALTER tenant DROP DEFAULT`,
			repairs: "ALTER TABLE upcall.upload_events ALTER tenant DROP NOT NULL", want: "accepts no row at all", answers: true},
		"no row fits a trigger": {breaks: `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
			CREATE TRIGGER refuse BEFORE INSERT ON upcall.upload_events FOR EACH ROW EXECUTE FUNCTION refuse()`,
			repairs: "DROP TRIGGER refuse ON upcall.upload_events", want: "accepts no row at all", answers: true},
		"schema is too old": {breaks: "UPDATE upcall.schema_migrations SET version = version - 1", want: "receiver migrate up", records: true},
		"schema is dirty":   {breaks: "UPDATE upcall.schema_migrations SET dirty = true", want: "was interrupted", records: true},
		"schema is too old, with a spool": {breaks: "UPDATE upcall.schema_migrations SET version = version - 1", want: "receiver migrate up",
			records: true, spools: true},
		"this month is gone":     {breaks: "DROP TABLE " + partition(0), want: "run receiver maintain"},
		"owner makes this month": {owner: true, breaks: "DROP TABLE " + partition(0)},
		"next month is gone":     {breaks: "DROP TABLE " + partition(1), want: "run receiver maintain", records: true},
		"owner makes next month": {owner: true, breaks: "DROP TABLE " + partition(1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keyURL, owner := ossfake.KeyURL(t), dbtest.URL(t)
			maintain(t, owner, time.Now())
			role := owner
			if !tt.owner {
				role = dbtest.Role(t, owner, grants...)
			}
			change := func(statement string) {
				u, err := url.Parse(role)
				if err != nil {
					t.Fatal(err)
				}
				dbtest.Execute(t, owner, strings.ReplaceAll(statement, "ROLE", u.User.Username()))
			}
			if tt.parameter != "" {
				role += "&" + tt.parameter
			}
			cfg := Config{DatabaseURL: role, TrustKeyURLs: []string{keyURL}, SpoolMinFreeBytes: -1}
			if tt.spools {
				cfg.SpoolDir = t.TempDir()
			}
			receiver, log := logged(t, cfg)
			ready := func(want int, text string) {
				t.Helper()
				var code int
				var body string
				wait.Until(t, "readyz answers in time", func() bool {
					code, body = servetest.Get(t, receiver.Admin+"/readyz")
					return strings.Contains(body, text) || !strings.Contains(body, "deadline") && !strings.Contains(body, "timeout")
				})
				if code != want || !strings.Contains(body, text) {
					t.Fatalf("readyz: %d %s, want %d with %s", code, body, want, text)
				}
			}
			try := func(object string, want int) {
				t.Helper()
				got := call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&reqId="+object+"&object="+object)
				if got.err != nil || got.code != want {
					t.Errorf("callback %s: %+v, want %d", object, got, want)
				}
			}
			if tt.parameter == "" {
				ready(200, "partitions: 2 months ahead")
				try("a", 200)
				if got := receiver.Metric(t, "upcall_partitions_ahead_months"); got != 2 {
					t.Errorf("%v months ahead", got)
				}
			}
			if tt.breaks != "" {
				change(tt.breaks)
			}
			if tt.want == "" {
				ready(200, "partitions: ")
				try("b", 200)
				return
			}
			if tt.answers {
				try("a2", 503)
			}
			ready(503, tt.want)
			if tt.records {
				try("b", 200)
				return
			}
			for _, object := range []string{"", "b", "c", "d"} {
				if object != "" { // at first, the load balancer's question alone has shown it
					try(object, 503)
				}
				if got := receiver.Metric(t, "upcall_database_away"); got != 1 {
					t.Errorf("after callback %q upcall_database_away is %v", object, got)
				}
			}
			if tt.repairs != "" {
				change(tt.repairs)
				if !tt.answers { // the receiver asks by itself
					wait.Until(t, "PostgreSQL is back", func() bool { return receiver.Metric(t, "upcall_database_away") == 0 })
				}
				ready(200, "partitions: 2 months ahead")
				if got := receiver.Metric(t, "upcall_database_away"); got != 0 {
					t.Errorf("afterwards upcall_database_away is %v", got)
				}
				try("e", 200)
			}
			if away, back := strings.Count(log(), "database is away"), strings.Count(log(), "database is back"); !tt.answers && away != 1 ||
				back != strings.Count(tt.repairs, " TO ") {
				t.Errorf("%d times away, %d times back:\n%s", away, back, log())
			}
		})
	}
}

// TestMonthsAhead: the months that are ahead pass by, and a receiver that may make none
// says how many are left.
func TestMonthsAhead(t *testing.T) {
	t.Parallel()
	owner := dbtest.URL(t)
	var months atomic.Int64
	now := func() time.Time { return time.Date(2031, 11+time.Month(months.Load()), 15, 0, 0, 0, 0, time.UTC) }
	maintain(t, owner, now())
	cfg := Config{DatabaseURL: dbtest.Role(t, owner, dbtest.Grants(t, page, "upcall_receiver")...), Now: now}
	receiver, _ := logged(t, cfg)
	for _, want := range []float64{2, 1, 0, -1, -1} {
		code, body := servetest.Get(t, receiver.Admin+"/readyz")
		if ready := code == 200; ready != (want >= 1) || ready && !strings.Contains(body, fmt.Sprintf("partitions: %v months ahead", want)) {
			t.Errorf("%v months ahead: readyz %d %s", want, code, body)
		}
		if got := receiver.Metric(t, "upcall_partitions_ahead_months"); got != want {
			t.Errorf("metric: %v months ahead, want %v", got, want)
		}
		months.Add(1)
	}
	maintain(t, owner, now())
	if code, body := servetest.Get(t, receiver.Admin+"/readyz"); code != 200 {
		t.Errorf("after maintain: readyz %d %s", code, body)
	}
	for n, want := range []bool{false, false, false, true} { // a receiver starts in the last month, too
		if err := check(t, cfg); isMistake(err) != want {
			t.Errorf("a start %d months after maintain: %v", n, err)
		}
		months.Add(1)
	}
}

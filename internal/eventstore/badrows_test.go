package eventstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

// refuseRows makes PostgreSQL fail rows for which a condition on NEW is true, with a SQLSTATE.
func refuseRows(table, condition, state string) string {
	return fmt.Sprintf(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF %s THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '%s'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON upcall.%s FOR EACH ROW EXECUTE FUNCTION refuse()`, condition, state, table)
}

const isBad = "NEW.object_key LIKE 'bad%'"

// A role without any right but those that recording needs, which row-level security binds.
const limitedRole = `CREATE ROLE upcall_test_limited; GRANT USAGE ON SCHEMA upcall TO upcall_test_limited;
	GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA upcall TO upcall_test_limited`

// digits is SQL for a text that is too long for an index, and cannot be compressed.
var digits = func() string {
	var parts []string
	for i := range 100 {
		parts = append(parts, fmt.Sprintf("md5('%d')", i))
	}
	return strings.Join(parts, " || ")
}()

// TestBadRows: whatever PostgreSQL reports of a row, the others of its batch are recorded, and
// only that one is a dead letter. It is the same where it is alone.
func TestBadRows(t *testing.T) {
	t.Parallel()
	spoil := map[string]string{
		"check":            "ALTER TABLE upcall.upload_events ADD CHECK (object_key NOT LIKE 'bad%')",
		"not null":         "ALTER TABLE upcall.upload_events ADD CHECK (nullif(object_key, 'bad 2') IS NOT NULL)",
		"index":            "CREATE INDEX ON upcall.upload_events ((1 / length(replace(object_key, 'bad 2', ''))))",
		"foreign key":      "CREATE TABLE keys (k text PRIMARY KEY); INSERT INTO keys VALUES ('a.txt'); ALTER TABLE upcall.upload_events ADD FOREIGN KEY (object_key) REFERENCES keys",
		"row security":     "ALTER TABLE upcall.upload_events ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON upcall.upload_events USING (true) WITH CHECK (object_key NOT LIKE 'bad%')",
		"missing table":    strings.Replace(refuseRows("upload_events", isBad, "P0001"), "RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0001'", "PERFORM 1 FROM no_such_table", 1),
		"missing right":    "CREATE TABLE secret (); " + strings.Replace(refuseRows("upload_events", isBad, "P0001"), "RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0001'", "PERFORM 1 FROM secret", 1),
		"ids":              refuseRows("callback_ids", "NEW.upload_id = '018f0000-0000-7000-8000-000000000002'", "P0001"),
		"number too large": "ALTER TABLE upcall.upload_events ADD COLUMN n smallint GENERATED ALWAYS AS (CASE object_key WHEN 'bad 2' THEN 100000 END) STORED",
		"text too long":    "ALTER TABLE upcall.upload_events ADD COLUMN n varchar(3) GENERATED ALWAYS AS (CASE object_key WHEN 'bad 2' THEN 'long' END) STORED",
		"division by zero": "ALTER TABLE upcall.upload_events ADD COLUMN n int GENERATED ALWAYS AS (1 / CASE object_key WHEN 'bad 2' THEN 0 ELSE 1 END) STORED",
		"domain":           "CREATE DOMAIN good AS text CHECK (VALUE NOT LIKE 'bad%'); ALTER TABLE upcall.upload_events ADD CHECK (object_key::good IS NOT NULL)",
		"not an enum":      "CREATE TYPE known AS ENUM ('a.txt', 'sample'); ALTER TABLE upcall.upload_events ADD CHECK (object_key::text::known IS NOT NULL)",
		"invalid bytes":    "ALTER TABLE upcall.upload_events ADD CHECK (convert_from(CASE object_key WHEN 'bad 2' THEN '\\xff'::bytea ELSE '' END, 'UTF8') IS NOT NULL)",
		"not JSON":         "ALTER TABLE upcall.upload_events ADD CHECK (CASE object_key WHEN 'bad 2' THEN '{'::text ELSE '1' END::json IS NOT NULL)",
		"index row":        "CREATE INDEX ON upcall.upload_events ((CASE object_key WHEN 'bad 2' THEN " + digits + " END))",
		"unique":           "CREATE UNIQUE INDEX ON upcall.upload_events_" + at.Format("2006_01") + " (object_key) WHERE object_key = 'bad 2'; INSERT INTO upcall.upload_events (id, received_at, source, object_key) SELECT gen_random_uuid(), '" + at.Format(time.RFC3339) + "', 'callback', 'bad 2'",
		"exclusion":        "ALTER TABLE upcall.upload_events_" + at.Format("2006_01") + " ADD EXCLUDE (object_key WITH =) WHERE (object_key = 'bad 2'); INSERT INTO upcall.upload_events (id, received_at, source, object_key) SELECT gen_random_uuid(), '" + at.Format(time.RFC3339) + "', 'callback', 'bad 2'",
		"endless trigger":  strings.Replace(refuseRows("upload_events", isBad, "P0001"), "RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0001'", "INSERT INTO upcall.upload_events SELECT NEW.*", 1),
		"not on empties":   "", // nothing is wrong
	}
	for _, state := range []string{
		"P0001", "42501", "22000", "23000", "23502", "23514", "54000", "0A000", "01000", "21000", "25006", "40001", "40P01", "42P01",
		"42703", "44000", "53000", "53100", "53400", "55000", "55P03", "57014", "58000", "58030", "72000", "F0000", "HV000", "P0004", "XX000",
		"XX001", "ZZ999", "08000", "08006",
	} {
		spoil["state "+state] = refuseRows("upload_events", isBad, state)
	}
	for name, ddl := range spoil {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			if err := EnsurePartitions(t.Context(), pool, at); err != nil {
				t.Fatal(err)
			}
			recorders := dbtest.Beside(t, pool, OpenRecorder)
			if name == "row security" || name == "missing right" {
				execute(t, pool, "DO $do$ BEGIN "+limitedRole+"; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $do$")
				execute(t, pool, strings.SplitN(limitedRole, ";", 2)[1])
				recorders = as(t, pool, "upcall_test_limited", "")
			}
			execute(t, pool, ddl)
			w := newWriter(patient(Config{Pool: recorders}).withDefaults(), eventKind)
			bad := func(i int) *event.Event {
				e := withUpload(smallEvent())
				e.Callback.Object = fmt.Sprintf("bad %d", i)
				if name == "ids" {
					e.UploadID.UUID[0] = 0x01
					copy(e.UploadID.UUID[:], []byte{0x01, 0x8f, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 2})
				}
				return e
			}
			want := "dead letter"
			if name == "not on empties" {
				want = "new"
			}
			if diff := cmp.Diff([]string{want}, answersOf(w, requests(t, bad(2)))); diff != "" {
				t.Errorf("alone:\n%s", diff)
			}
			var events []*event.Event
			var all []string
			for i := range 64 {
				e, outcome := smallEvent(), "new"
				if i == 17 || i == 40 {
					e, outcome = bad(2), want
				}
				events, all = append(events, e), append(all, outcome)
			}
			if diff := cmp.Diff(all, answersOf(w, requests(t, events...))); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{want}, answersOf(w, requests(t, bad(2)))); diff != "" {
				t.Errorf("alone, with others there:\n%s", diff)
			}
		})
	}
}

// TestNoRowFits: a schema that takes no row at all says nothing of a callback, and costs only so
// many transactions.
func TestNoRowFits(t *testing.T) {
	t.Parallel()
	for name, ddl := range map[string]string{
		"new column":        "ALTER TABLE upcall.upload_events ADD COLUMN tenant text NOT NULL",
		"new column of ids": "ALTER TABLE upcall.callback_ids ADD COLUMN tenant text NOT NULL",
		"check":             "ALTER TABLE upcall.upload_events ADD CHECK (bucket <> 'demo') NOT VALID",
		"trigger":           refuseRows("upload_events", "true", "P0001"),
		"trigger on ids":    refuseRows("callback_ids", "true", "42501"),
		"full disk":         refuseRows("upload_events", "true", "53100"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			w := newWriter(patient(Config{Pool: dbtest.Beside(t, pool, OpenRecorder)}).withDefaults(), eventKind)
			if name == "check" { // of an older time
				if diff := cmp.Diff([]string{"new"}, answersOf(w, requests(t, smallEvent()))); diff != "" {
					t.Fatal(diff)
				}
			}
			execute(t, pool, ddl)
			if diff := cmp.Diff([]string{"no row fits"}, answersOf(w, requests(t, smallEvent()))); diff != "" {
				t.Errorf("alone:\n%s", diff)
			}
			var events []*event.Event
			for range 500 {
				events = append(events, smallEvent())
			}
			for _, got := range answersOf(w, requests(t, events...)) {
				if got != "no row fits" {
					t.Fatalf("of many: %s", got)
				}
			}
			var tries int
			const rolledBack = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
			if err := pool.QueryRow(t.Context(), rolledBack).Scan(&tries); err != nil || tries > 120 {
				t.Errorf("%d transactions failed, %v", tries, err)
			}
		})
	}
}

// TestOnlyOnce: what PostgreSQL reports once, because of another transaction for example, says
// nothing of a row. All are recorded.
func TestOnlyOnce(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"40001", "40P01", "55P03", "57014", "53100", "XX000", "P0001"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			execute(t, pool, "CREATE SEQUENCE tries; GRANT ALL ON tries TO public")
			execute(t, pool, refuseRows("upload_events", isBad+" AND nextval('tries') = 1", state))
			w := newWriter(patient(Config{Pool: dbtest.Beside(t, pool, OpenRecorder)}).withDefaults(), eventKind)
			var events []*event.Event
			var want []string
			for i := range 8 {
				e := smallEvent()
				if i == 3 {
					e.Callback.Object = "bad"
				}
				events, want = append(events, e), append(want, "new")
			}
			if diff := cmp.Diff(want, answersOf(w, requests(t, events...))); diff != "" {
				t.Error(diff)
			}
			execute(t, pool, "ALTER SEQUENCE tries RESTART")
			alone := smallEvent()
			alone.Callback.Object = "bad"
			if diff := cmp.Diff([]string{"new"}, answersOf(w, requests(t, alone))); diff != "" {
				t.Errorf("alone: %s", diff)
			}
		})
	}
}

// as returns a recorder's pool whose sessions take on a role, which a pooler could not keep for them.
func as(t *testing.T, pool *pgxpool.Pool, role, settings string) *pgxpool.Pool {
	t.Helper()
	recorders, err := OpenRecorder(t.Context(), dbtest.Direct(t, pool, OpenRecorder).Config().ConnString()+"&role="+role+settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(recorders.Close)
	return recorders
}

// TestMonthMissing: a late callback, for whose month there is no partition, and whose role may
// not make one, fails alone. If the partition of this month is missing, no callback is a dead
// letter, although there are events of an earlier month.
func TestMonthMissing(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	if err := EnsurePartitions(t.Context(), pool, at); err != nil {
		t.Fatal(err)
	}
	execute(t, pool, "DO $do$ BEGIN "+limitedRole+"; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $do$")
	execute(t, pool, strings.SplitN(limitedRole, ";", 2)[1])
	recorders := as(t, pool, "upcall_test_limited", "")
	answers := func(clock time.Time, events ...*event.Event) []string {
		batch := requests(t, events...)
		for _, q := range batch {
			q.row.clock = clock
		}
		return answersOf(newWriter(patient(Config{Pool: recorders}).withDefaults(), eventKind), batch)
	}
	soon, late := at.Add(time.Hour), smallEvent()
	late.ReceivedAt = at.AddDate(-3, 0, 0)
	if diff := cmp.Diff([]string{"dead letter"}, answers(soon, late)); diff != "" {
		t.Errorf("late, alone: %s", diff)
	}
	got := answers(soon, smallEvent(), late, smallEvent(), smallEvent())
	if diff := cmp.Diff([]string{"new", "dead letter", "new", "new"}, got); diff != "" {
		t.Errorf("late, among others: %s", diff)
	}
	now := smallEvent()
	now.ReceivedAt = at.AddDate(2, 0, 0)
	if diff := cmp.Diff([]string{"no row fits"}, answers(now.ReceivedAt, now)); diff != "" {
		t.Errorf("this month: %s", diff)
	}
}

// TestNotOfRows: what says that PostgreSQL takes nothing now is not blamed on the rows.
func TestNotOfRows(t *testing.T) {
	t.Parallel()
	for name, ddl := range map[string]string{
		"renamed table":  "ALTER TABLE upcall.callback_ids RENAME TO other",
		"dropped column": "ALTER TABLE upcall.upload_events DROP COLUMN etag CASCADE",
		"no right":       "REVOKE INSERT ON upcall.upload_events FROM upcall_test_norights",
		"read only":      "ALTER ROLE upcall_test_norights SET default_transaction_read_only = on",
	} {
		t.Run(name, func(t *testing.T) {
			pool := dbtest.Pool(t, Open)
			limited := strings.ReplaceAll(limitedRole, "upcall_test_limited", "upcall_test_norights")
			execute(t, pool, "DO $do$ BEGIN "+limited+"; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $do$")
			execute(t, pool, strings.SplitN(limited, ";", 2)[1])
			if err := EnsurePartitions(t.Context(), pool, at); err != nil {
				t.Fatal(err)
			}
			execute(t, pool, ddl)
			settings := ""
			if name == "read only" {
				settings = "&default_transaction_read_only=on"
			}
			w := newWriter(patient(Config{Pool: as(t, pool, "upcall_test_norights", settings)}).withDefaults(), eventKind)
			for _, got := range answersOf(w, requests(t, smallEvent(), smallEvent())) {
				if got != "unavailable" {
					t.Errorf("got %s", got)
				}
			}
			if err := w.ping(t.Context()); err == nil || errors.Is(err, event.ErrDeadLetter) {
				t.Errorf("ping: %v", err)
			}
		})
	}
}

package rollup

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/toolchain"
)

// TestPooler: the workers count through a pooler in transaction mode that gives no two transactions the
// same session, and whose sessions have other settings.
func TestPooler(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	direct := dbtest.URL(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"ALTER ROLE CURRENT_USER IN DATABASE DB SET synchronous_commit = local",
		"ALTER ROLE CURRENT_USER IN DATABASE DB SET statement_timeout = '2min'",
		"CREATE TABLE upcall.noted (settings text, session int)",
		`CREATE FUNCTION upcall.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO upcall.noted VALUES (concat_ws(' ', current_setting('synchronous_commit'), current_setting('statement_timeout'),
				current_setting('enable_seqscan'), current_setting('jit'), current_setting('transaction_isolation')), pg_backend_pid());
			RETURN NULL;
		END $$`,
		"CREATE TRIGGER note AFTER INSERT OR UPDATE ON upcall.rollup_hourly FOR EACH STATEMENT EXECUTE FUNCTION upcall.note()",
	} {
		dbtest.Execute(t, direct, strings.ReplaceAll(statement, "DB", u.Path[1:]))
	}
	w, random := worldAt(t, direct, pgbouncer.Start(t, direct, "transaction", "server_round_robin = 1")), seeded(t)
	w.addRandom(t, random, 500)
	worker, run := w.worker(t, 200*time.Millisecond)
	_, another := w.worker(t, 200*time.Millisecond)
	run()
	stop := another()
	for range 3 {
		w.addRandom(t, random, 200)
		w.exec(t, "UPDATE upcall.feed_consumers SET lease_holder = 'another', lease_until = now() + interval '100 ms'")
		w.caughtUp(t, worker)
		w.compare(t)
	}
	stop()
	if err := Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	w.addRandom(t, random, 200)
	w.rebuilt(t, worker)
	w.caughtUp(t, worker)
	w.compare(t)
	w.compareViews(t)
	// Counting is not synchronous, see batch.apply; its other settings are those of the pool, in which dbtest
	// gives statements a minute.
	const right = "off 1min off off read committed"
	if got := w.lines(t, "SELECT DISTINCT settings FROM upcall.noted WHERE settings <> '"+right+"'"); len(got) > 0 {
		t.Errorf("transactions had %q, want %q", got, right)
	}
	if n := w.number(t, "SELECT count(DISTINCT session) FROM upcall.noted"); n < 2 {
		t.Errorf("%d sessions were used, want several: this tests nothing", n)
	}
}

package receiver

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/wait"
)

func TestParseRetention(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]int{"": 0, "0s": 0, "31d": 31, "400d": 400, "0400d": 400, "36500d": 36_500} {
		if got, err := ParseRetention(given); got != want || err != nil {
			t.Errorf("%q: %d, %v", given, got, err)
		}
	}
	const noNumber, outOfRange = "is not a number of days", "days is not between 31"
	for want, all := range map[string][]string{
		`"400" has no unit: write 400d (minimum 31d)`: {"400"},
		noNumber: {"0d", "-400d", "+400d", "99999999999999999999d", "d", "400h", "400D", "400 d", " 400d", "1e3d", "4OOd", "400dd",
			"13m"},
		outOfRange: {"30d", "1d", "36501d"},
	} {
		for _, given := range all {
			if days, err := ParseRetention(given); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q was read as %d days, %v", given, days, err)
			}
		}
	}
	for _, days := range []int{-1, 1, 30, 36_501} {
		if err := checkRetention(days); err == nil || !strings.Contains(err.Error(), outOfRange) {
			t.Errorf("%d days: %v", days, err)
		}
	}
}

// TestRunExpiresAndKeepsRefusals checks that a running receiver whose clock is wrong drops expired
// events, records callbacks meanwhile, and keeps refusals.
func TestRunExpiresAndKeepsRefusals(t *testing.T) {
	t.Parallel()
	url, keyURL := dbtest.URL(t), ossfake.KeyURL(t)
	pool, err := eventstore.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, ago := range []int{6, 1} {
		if err := eventstore.EnsurePartitions(t.Context(), pool, time.Now().AddDate(0, -ago, 0)); err != nil {
			t.Fatal(err)
		}
	}
	count := func(sql string, args ...any) (n int) {
		t.Helper()
		if err := pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'upcall.upload_events'::regclass"
	before := count(months)
	jumped := func() time.Time { return time.Now().AddDate(40, 0, 0) }
	receiver := start(t, Config{DatabaseURL: url, TrustKeyURLs: []string{keyURL}, RetentionDays: 60, MaxRefusals: 10, Now: jumped})
	wait.Until(t, "a callback is recorded", func() bool {
		return call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId=1").code == 200
	})
	refused := 0
	refuse := func() {
		refused++
		got := call(http.DefaultClient, receiver.Public, "http://127.0.0.1:1/other.pem", fmt.Sprint("bucket=demo&object=b&reqId=", refused))
		if got.code != 403 {
			t.Errorf("got %+v", got)
		}
	}
	for range 20 {
		refuse()
	}
	wait.Until(t, "refusals are kept, but no more than 10", func() bool { // on a slow machine, some are dropped
		refuse()
		return count(`SELECT count(*) FROM upcall.refused_callbacks
			WHERE reason = 'key_url_untrusted' AND request_id IS NOT NULL AND bucket = 'demo'`) == 10
	})
	oldest := time.Now().UTC().AddDate(0, 0, -time.Now().UTC().Day()+1).AddDate(0, -7, 0).Format("upload_events_2006_01")
	wait.Until(t, "the oldest month is dropped", func() bool {
		return count("SELECT count(*) FROM pg_class WHERE relname = $1", oldest) == 0
	})
	if err := receiver.Stop(); err != nil {
		t.Fatal(err)
	}
	// The wrong clock has made four partitions, and only one was dropped.
	if n := count(months); n != before+4-1 {
		t.Errorf("%d months, want %d", n, before+3)
	}
	if n := count("SELECT count(*) FROM upcall.upload_events"); n != 1 {
		t.Errorf("%d events", n)
	}
}

// TestNoRefusals checks that refusals can be off, and that nothing expires by default.
func TestNoRefusals(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool, err := eventstore.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := eventstore.EnsurePartitions(t.Context(), pool, time.Now().AddDate(-9, 0, 0)); err != nil {
		t.Fatal(err)
	}
	receiver := start(t, Config{DatabaseURL: url, MaxRefusals: -1})
	if got := call(http.DefaultClient, receiver.Public, "http://127.0.0.1:1/other.pem", "bucket=demo"); got.code != 403 {
		t.Errorf("got %+v", got)
	}
	if err := receiver.Stop(); err != nil {
		t.Fatal(err)
	}
	var refusals, months int
	if err := pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM upcall.refused_callbacks),
		(SELECT count(*) FROM pg_class WHERE relname = $1)`,
		time.Now().UTC().AddDate(-9, 0, 0).Format("upload_events_2006_01")).Scan(&refusals, &months); err != nil || refusals != 0 ||
		months != 1 {
		t.Errorf("%d refusals and %d months, %v", refusals, months, err)
	}
}

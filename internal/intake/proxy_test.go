package intake

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/httpserver"
)

// TestSenderBehindProxy checks that the log and the rows name the sender, not the proxy, but
// nobody else whom the sender names.
func TestSenderBehindProxy(t *testing.T) {
	t.Parallel()
	for trusted, want := range map[string][]string{
		"127.0.0.1,10.0.0.0/8": {"198.51.100.7", "198.51.100.8"},
		"10.0.0.0/8":           {"127.0.0.1", "127.0.0.1"}, // the peer is a stranger
		"":                     {"127.0.0.1", "127.0.0.1"},
	} {
		o, pool := newOSS(t), dbtest.Pool(t, eventstore.Open)
		store, err := eventstore.NewRefusals(pool, 1000)
		if err != nil {
			t.Fatal(err)
		}
		proxies, err := httpserver.ParseProxies(strings.Split(trusted, ","))
		if err != nil {
			t.Fatal(err)
		}
		s := serve(t, o, pool, func(c *Config) { c.Refusals, c.Proxies = store, proxies })
		request := func(token, forwarded string) *http.Request {
			body := issued(t, "a.txt", token).body(t, callbackspec.Form)
			r := o.request(t, s.Public, path, form, strings.Replace(body, "upcall_token=", token+"=", 1))
			r.Header.Set("X-Forwarded-For", forwarded)
			r.Header.Set("X-Real-IP", "192.0.2.66")
			return r
		}
		accepted := do(t, request("upcall_token", "192.0.2.66, 198.51.100.6, 10.1.2.3"))
		refused := []answered{
			do(t, request("other", "192.0.2.66, 198.51.100.7, 10.1.2.3")), do(t, request("others", "198.51.100.8")),
		}
		if accepted.Code != 200 || refused[0].Code != 403 || refused[1].Code != 403 {
			t.Errorf("%q: answers %s %s %s", trusted, accepted.Raw, refused[0].Raw, refused[1].Raw)
		}
		if err := s.Stop(); err != nil { // writes the waiting refusals
			t.Fatal(err)
		}
		rows, err := pool.Query(t.Context(), `SELECT host(source_addr) FROM upcall.refused_callbacks`)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: senders (-want +got):\n%s", trusted, diff)
		}
		remote := `"remote":"127.0.0.1:` // without proxies, with the port
		if trusted != "" {
			remote = `"remote":"` + strings.Replace(want[0], "100.7", "100.6", 1) + `","peer":"127.0.0.1:`
		}
		if log := s.log.String(); !strings.Contains(log, remote) || strings.Contains(log, "192.0.2.66") {
			t.Errorf("%q: want %s in the log:\n%s", trusted, remote, log)
		}
	}
}

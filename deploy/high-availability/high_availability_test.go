// Package highavailability_test starts HAProxy, PgBouncer and Patroni with the settings here.
package highavailability_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/receiver"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
	"upcall/migrations"
)

// replaced returns the text of a file here with each of some texts replaced, and fails the test if one is not in it.
func replaced(t *testing.T, name string, pairs ...string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			t.Fatalf("%s has no %q", name, pairs[i])
		}
		text = bytes.ReplaceAll(text, []byte(pairs[i]), []byte(pairs[i+1]))
	}
	return string(text)
}

func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// haproxy starts HAProxy with the file here before some servers, each with its Patroni, and returns its address.
func haproxy(t *testing.T, servers ...*node) string {
	t.Helper()
	address := servetest.FreeAddress(t)
	pairs := []string{"127.0.0.1:5000", address}
	for i, n := range servers {
		_, port, _ := net.SplitHostPort(n.patroni)
		pairs = append(pairs, fmt.Sprintf("10.0.0.1%d:5432 check port 8008", i+1), n.address+" check port "+port)
	}
	cmd := exec.Command(toolchain.Path("haproxy"), "-db", "-f", written(t, "haproxy.cfg", replaced(t, "haproxy.cfg", pairs...)))
	proc.Program(t, cmd, os.Kill)
	return address
}

// A node is a server with a Patroni, or what HAProxy asks of one.
type node struct {
	address, patroni string // where they listen
	leads            atomic.Bool
}

func newNode(t *testing.T, databaseURL string, leads bool) *node {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{address: u.Host}
	n.leads.Store(leads)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/primary" || !n.leads.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	n.patroni = server.Listener.Addr().String()
	return n
}

// at returns a database's URL with another address.
func at(t *testing.T, databaseURL, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = address
	return u
}

// pooler starts PgBouncer with the file here before a PostgreSQL, and returns the URL for receivers. That for
// migrations names the database upcall_owner.
func pooler(t *testing.T, u *url.URL) string {
	t.Helper()
	return pgbouncer.Run(t, u, func(address *net.TCPAddr, users string) string {
		return replaced(t, "pgbouncer.ini", "port=5000", "port="+u.Port(), "listen_port = 6432", fmt.Sprintf("listen_port = %d", address.Port),
			"upcall = host", u.Path[1:]+" = host", "dbname=upcall", "dbname="+u.Path[1:], "/etc/pgbouncer/userlist.txt", users,
			"logfile =", ";", "pidfile =", ";")
	})
}

// serve starts a receiver that ignores tokens.
func serve(t *testing.T, databaseURL, keyURL string) *servetest.Service {
	t.Helper()
	cfg := receiver.Config{DatabaseURL: databaseURL, TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1,
		Admission: admission.Config{TokenPolicy: admission.TokenOff}, Logger: slog.New(slog.DiscardHandler)}
	return servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error {
		return receiver.Run(ctx, cfg, public, admin)
	})
}

// answer sends a callback and returns the body of the answer.
func answer(t *testing.T, s *servetest.Service, keyURL, request string) string {
	t.Helper()
	body := "bucket=demo&object=a&reqId=" + request
	r, err := ossfake.Callback(t.Context(), s.Public, "/oss/callback", string(callbackspec.Form), body, keyURL)
	if err != nil {
		t.Fatal(err)
	}
	_, said := servetest.Do(t, r)
	return said
}

const recorded = `"durable":"postgres"`

// leftIn is more than a former primary's connections last: HAProxy looks twice, and this machine may be busy.
const leftIn = 30 * time.Second

// TestFailover: behind HAProxy, and behind PgBouncer and HAProxy, a receiver leaves a former primary within seconds,
// even one that still takes writes, and records on the new one.
func TestFailover(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"haproxy", "pgbouncer", "standby"} {
		toolchain.Need(t, tool)
	}
	primary, keyURL := dbtest.NewServer(t), ossfake.KeyURL(t)
	standby := dbtest.NewStandby(t, primary.URL())
	former, next := newNode(t, primary.URL(), true), newNode(t, standby.URL(), false)
	front := haproxy(t, former, next)
	through := at(t, primary.URL(), front)
	receivers := map[string]*servetest.Service{
		"haproxy": serve(t, through.String(), keyURL), "pgbouncer": serve(t, pooler(t, through), keyURL),
	}
	for name, r := range receivers {
		wait.Until(t, name+" records", func() bool { return strings.Contains(answer(t, r, keyURL, name+"-before"), recorded) })
	}
	old, fresh := dbtest.Open(t, primary.URL(), eventstore.Open), dbtest.Open(t, standby.URL(), eventstore.Open)
	clients := func() (n int) {
		err := old.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if clients() == 0 {
		t.Fatal("no receiver is connected to the primary")
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	former.leads.Store(false)
	next.leads.Store(true)
	began := time.Now()
	wait.Until(t, "the former primary has no clients", func() bool { return clients() == 0 })
	took := time.Since(began)
	t.Logf("the former primary was left after %v", took)
	if took > leftIn {
		t.Errorf("receivers stayed at the former primary for %v", took)
	}
	for name, r := range receivers {
		i := 0
		wait.Until(t, name+" records again", func() bool {
			i++
			return strings.Contains(answer(t, r, keyURL, fmt.Sprintf("%s-after-%d", name, i)), recorded)
		})
		var n int
		err := fresh.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events WHERE request_id LIKE $1", name+"-after-%").Scan(&n)
		if err != nil || n == 0 {
			t.Errorf("%s: the new primary has %d of its events, %v", name, n, err)
		}
	}
}

// TestPgBouncer: migrations go through one of PgBouncer's databases, and say so at the other; a receiver records
// through that one.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	u, err := url.Parse(dbtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	through, keyURL := pooler(t, u), ossfake.KeyURL(t)
	owners, err := url.Parse(through)
	if err != nil {
		t.Fatal(err)
	}
	owners.Path = "/upcall_owner"
	if err := migrations.Up(t.Context(), through); !errors.Is(err, migrations.ErrPooler) {
		t.Errorf("migrate in transaction mode: %v", err)
	}
	if err := migrations.Up(t.Context(), owners.String()); err != nil {
		t.Fatalf("migrate in session mode: %v", err)
	}
	r := serve(t, through, keyURL)
	wait.Until(t, "a callback is recorded", func() bool { return strings.Contains(answer(t, r, keyURL, "1"), recorded) })
}

func TestHAProxyAccepts(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "haproxy")
	if out, err := exec.CommandContext(t.Context(), toolchain.Path("haproxy"), "-c", "-f", "haproxy.cfg").CombinedOutput(); err != nil ||
		strings.Contains(string(out), "WARNING") {
		t.Errorf("%v: %s", err, out)
	}
	broken := written(t, "haproxy.cfg", replaced(t, "haproxy.cfg", "shutdown-sessions", "shutdown-session"))
	if exec.CommandContext(t.Context(), toolchain.Path("haproxy"), "-c", "-f", broken).Run() == nil {
		t.Error("haproxy -c accepts a misspelt setting")
	}
}

// TestPatroniAccepts: Patroni has nothing against its settings, on a machine where etcd answers and nothing else
// listens yet.
func TestPatroniAccepts(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "patroni")
	bin, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bin) == 0 {
		t.Fatalf("no PostgreSQL: %v", err)
	}
	etcd := servetest.Listen(t).Addr().String()
	pairs := []string{"listen: 10.0.0.11:8008", "listen: " + servetest.FreeAddress(t),
		"listen: 10.0.0.11,127.0.0.1:5432", "listen: 127.0.0.1," + servetest.FreeAddress(t),
		"10.0.0.11:2379", etcd, "10.0.0.12:2379", etcd, "10.0.0.13:2379", etcd,
		"/usr/lib/postgresql/15/bin", bin[0], "/var/lib/postgresql/15/upcall", filepath.Join(t.TempDir(), "data")}
	validate := func(pairs []string) (string, error) {
		out, err := exec.CommandContext(t.Context(), toolchain.Path("patroni"), "--validate-config",
			written(t, "patroni.yml", replaced(t, "patroni.yml", pairs...))).CombinedOutput()
		return string(out), err
	}
	if out, err := validate(pairs); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("%v: %s", err, out)
	}
	if out, _ := validate(append(pairs, "ttl: 20", "ttl: twenty")); !strings.Contains(out, "bootstrap.dcs.ttl") {
		t.Errorf("a ttl that is no number is accepted: %s", out)
	}
}

// TestPatroniAsDocumented: the settings of the cluster are those that docs/high-availability.md explains, and that
// drills ran with.
func TestPatroniAsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/high-availability.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("the page has no settings")
	}
	type settings struct {
		Bootstrap struct{ DCS map[string]any }
	}
	var here, there settings
	if err := yaml.Unmarshal([]byte(replaced(t, "patroni.yml")), &here); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(block[1], &there); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(there.Bootstrap.DCS, here.Bootstrap.DCS); diff != "" || len(here.Bootstrap.DCS) == 0 {
		t.Errorf("docs/high-availability.md (-) and patroni.yml (+):\n%s", diff)
	}
}

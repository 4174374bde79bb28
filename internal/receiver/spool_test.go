package receiver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/embeddedpg"
	"upcall/internal/eventstore"
	"upcall/internal/intake"
	"upcall/migrations"
)

// postgres is a server of a test's own, which can be killed and started again.
type postgres struct {
	dir    string
	server *embeddedpg.Server
}

func startPostgres(t *testing.T) *postgres {
	t.Helper()
	dir, err := os.MkdirTemp("", "upcall-receiver-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL does not run as root, and must get in
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postgres{dir: dir}
	p.start(t, 0)
	if err := migrations.Up(t.Context(), p.server.URL()); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *postgres) start(t *testing.T, port int) {
	t.Helper()
	server, err := embeddedpg.Start(t.Context(), embeddedpg.Config{DataDir: p.dir, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	p.server = server
	t.Cleanup(func() { server.Stop() })
}

// restart starts the server again after a kill, at the same URL.
func (p *postgres) restart(t *testing.T) { t.Helper(); p.start(t, p.server.Port()) }

// accepted is an answer 200.
type accepted struct {
	EventID   uuid.UUID `json:"event_id"`
	Duplicate bool      `json:"duplicate"`
	Durable   string    `json:"durable"`
}

func decodeAnswer(t *testing.T, answer string) accepted {
	t.Helper()
	var a accepted
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		t.Errorf("answer %s: %v", answer, err)
	}
	return a
}

// metric returns a value of /metrics.
func metric(t *testing.T, admin, name string) float64 {
	t.Helper()
	response, err := http.Get(admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// wantRows checks that the events, and no others, are in the database, once each.
func wantRows(t *testing.T, databaseURL string, ids map[uuid.UUID]bool) {
	t.Helper()
	pool, err := eventstore.Open(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	found, err := pool.Query(t.Context(), "SELECT id FROM upcall.upload_events")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	seen := make(map[uuid.UUID]bool)
	for found.Next() {
		var id uuid.UUID
		if err := found.Scan(&id); err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for id := range ids {
		if !seen[id] {
			lost++
		}
	}
	if lost > 0 || len(seen) != len(ids) {
		t.Errorf("%d of %d acknowledged callbacks are lost, there are %d rows", lost, len(ids), len(seen))
	}
}

// load has clients send callbacks, some of them twice, until stop. All must be answered
// 200 and in time.
type load struct {
	mu      sync.Mutex
	ids     map[uuid.UUID]bool
	where   map[string]int // answers by durable
	slowest time.Duration
	stop    func()
}

func startLoad(t *testing.T, base, keyURL string, clients int) *load {
	l := &load{ids: make(map[uuid.UUID]bool), where: make(map[string]int)}
	done := make(chan struct{})
	var group sync.WaitGroup
	for c := range clients {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				code, answer, took, err := call(client, base, keyURL, fmt.Sprintf("bucket=demo&object=%d&reqId=%d-%d", c, c, i/10*10+i%9))
				if err != nil || code != 200 {
					t.Errorf("got %d %s, %v", code, answer, err)
					return
				}
				a := decodeAnswer(t, answer)
				l.mu.Lock()
				l.slowest = max(l.slowest, took)
				l.ids[a.EventID] = true
				l.where[a.Durable]++
				l.mu.Unlock()
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(done); group.Wait() })
	t.Cleanup(l.stop)
	return l
}

func (l *load) answers(durable string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.where[durable]
}

// TestSpoolBridgesOutage: PostgreSQL is killed under load and comes back; every callback
// is answered 200 in time, and is one row in the end.
func TestSpoolBridgesOutage(t *testing.T) {
	t.Parallel()
	database, keyURL := startPostgres(t), keyServer(t)
	receiver := start(t, Config{DatabaseURL: database.server.URL(), TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1})
	l := startLoad(t, receiver.public, keyURL, 16)
	for round := range 2 {
		before := l.answers("postgres")
		eventually(t, "PostgreSQL takes callbacks", func() bool { return l.answers("postgres") >= before+300 })
		if err := database.server.Kill(); err != nil {
			t.Fatal(err)
		}
		before = l.answers("spool")
		eventually(t, "the spool takes callbacks", func() bool { return l.answers("spool") >= before+300 })
		if got := status(t, receiver.admin+"/readyz"); got != 200 {
			t.Errorf("readyz with a spool: %d", got)
		}
		if depth, away := metric(t, receiver.admin, "upcall_spool_depth"), metric(t, receiver.admin, "upcall_database_away"); depth == 0 || away != 1 {
			t.Errorf("round %d: depth %v, away %v", round, depth, away)
		}
		database.restart(t)
	}
	before := l.answers("postgres")
	eventually(t, "PostgreSQL takes callbacks again, and has the spool's", func() bool {
		return l.answers("postgres") >= before+300 && metric(t, receiver.admin, "upcall_spool_depth") == 0
	})
	l.stop()
	if l.slowest > 5*time.Second {
		t.Errorf("the slowest answer took %s; OSS waits 5 s", l.slowest)
	}
	for _, name := range []string{"upcall_spool_rejected", "upcall_spool_damaged_files", "upcall_spool_oldest_seconds", "upcall_database_away"} {
		if got := metric(t, receiver.admin, name); got != 0 {
			t.Errorf("%s is %v at the end", name, got)
		}
	}
	if err := receiver.stop(); err != nil {
		t.Error(err)
	}
	wantRows(t, database.server.URL(), l.ids)
}

// TestSilentPostgres: connections to PostgreSQL are accepted, and nothing comes back.
func TestSilentPostgres(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var held sync.WaitGroup
	held.Go(func() {
		var conns []net.Conn
		for {
			conn, err := silent.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Close()
		}
	})
	t.Cleanup(func() { silent.Close(); held.Wait() })
	keyURL := keyServer(t)
	receiver := start(t, Config{DatabaseURL: "postgres://nobody@" + silent.Addr().String() + "/none?sslmode=disable",
		TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1})
	status(t, receiver.admin+"/livez") // it serves: it asked for the schema first
	l := startLoad(t, receiver.public, keyURL, 8)
	eventually(t, "the spool takes callbacks", func() bool { return l.answers("spool") >= 2000 })
	l.stop()
	if l.slowest > intake.Deadline {
		t.Errorf("the slowest answer took %s", l.slowest)
	}
}

func TestSpoolFull(t *testing.T) {
	t.Parallel()
	keyURL := keyServer(t)
	receiver := start(t, Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", TrustKeyURLs: []string{keyURL},
		SpoolDir: t.TempDir(), SpoolMaxBytes: 100 << 10, SpoolMinFreeBytes: -1})
	for i := 0; ; i++ {
		code, answer, took, err := call(http.DefaultClient, receiver.public, keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%d", i))
		if err != nil || i > 1000 {
			t.Fatal(i, err)
		}
		if code == 200 {
			continue
		}
		if code != 503 || !strings.Contains(answer, `"unavailable"`) || took > time.Second || i < 10 {
			t.Errorf("callback %d got %d %s after %s", i, code, answer, took)
		}
		break
	}
	if got := status(t, receiver.admin+"/readyz"); got != 503 {
		t.Errorf("readyz: %d", got)
	}
}

func TestSpoolInUse(t *testing.T) {
	t.Parallel()
	cfg := Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", SpoolDir: t.TempDir()}
	ended := make(chan error, 2)
	for range 2 {
		receiver := start(t, cfg)
		go func() { ended <- receiver.wait() }()
	}
	// One of the two serves, whichever was first; the other says why it does not.
	err := <-ended
	if err == nil || !strings.Contains(err.Error(), "in use by another process: "+cfg.SpoolDir) {
		t.Errorf("got %v", err)
	}
}

const childVariable = "UPCALL_RECEIVER_TEST_CHILD" // database URL, spool directory and key URL, in lines

// child is what this test binary does as a child: it is a receiver, until killed.
func child() {
	settings := strings.Split(os.Getenv(childVariable), "\n")
	if len(settings) != 3 {
		return
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		return l
	}
	public, admin := listen(), listen()
	fmt.Println(public.Addr())
	err := Run(context.Background(), Config{DatabaseURL: settings[0], SpoolDir: settings[1], SpoolMinFreeBytes: -1,
		TrustKeyURLs: []string{settings[2]}, TokenPolicy: intake.TokenOff, Logger: slog.New(slog.DiscardHandler)}, public, admin)
	fmt.Println(err)
	os.Exit(1)
}

// TestReceiverKilled: receivers are killed with SIGKILL while they spool, and while they
// drain. The next one goes on, and in the end all that was acknowledged is a row.
func TestReceiverKilled(t *testing.T) {
	t.Parallel()
	database, keyURL, dir := startPostgres(t), keyServer(t), t.TempDir()
	databaseURL := database.server.URL()
	acknowledged, uncertain := make(map[uuid.UUID]bool), 0
	var mu sync.Mutex
	if err := database.server.Kill(); err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		if round == 2 {
			database.restart(t)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+strings.Join([]string{databaseURL, dir, keyURL}, "\n"))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		answered, enough := 0, make(chan struct{})
		for c := range 8 {
			group.Go(func() {
				client := &http.Client{Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				for i := 0; ; i++ {
					code, answer, _, err := call(client, "http://"+strings.TrimSpace(address), keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%d-%d-%d", round, c, i))
					mu.Lock()
					if err != nil { // killed: the callback may be kept or not
						uncertain++
						mu.Unlock()
						return
					}
					if code != 200 {
						t.Errorf("got %d %s", code, answer)
					}
					acknowledged[decodeAnswer(t, answer).EventID] = true
					if answered++; answered == 400 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		cmd.Process.Kill()
		group.Wait()
		cmd.Wait()
	}
	receiver := start(t, Config{DatabaseURL: databaseURL, TrustKeyURLs: []string{keyURL}, SpoolDir: dir, SpoolMinFreeBytes: -1})
	eventually(t, "the spool is empty", func() bool { return metric(t, receiver.admin, "upcall_spool_depth") == 0 })
	pool, err := eventstore.Open(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	lost := 0
	for id := range acknowledged {
		if rows(t, pool, id) != 1 {
			lost++
		}
	}
	var all int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events").Scan(&all); err != nil {
		t.Fatal(err)
	}
	if lost > 0 || all > len(acknowledged)+uncertain {
		t.Errorf("%d of %d lost or twice, %d rows, %d uncertain", lost, len(acknowledged), all, uncertain)
	}
}

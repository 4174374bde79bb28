package receiver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
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
	server, err := embeddedpg.Start(t.Context(), embeddedpg.Config{DataDir: p.dir, Port: port, StartTimeout: 2 * time.Minute})
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

// wantRows checks that the events are in the database, once each, and of others at most
// so many.
func wantRows(t *testing.T, databaseURL string, ids map[uuid.UUID]bool, others int) {
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
	if lost > 0 || len(seen) > len(ids)+others {
		t.Errorf("%d of %d acknowledged callbacks are lost, there are %d rows, and %d callbacks were refused", lost, len(ids), len(seen), others)
	}
}

// tooSlow is what an answer takes that waits for something without a limit. On a slow
// machine, beside other tests, an answer may well take longer than the five seconds that
// OSS waits; make chaos holds the receiver to these.
const tooSlow = 15 * time.Second

// load has clients send callbacks, some of them twice, until stop. All must be answered
// 200, but for those that a slow machine keeps until the receiver's deadline.
type load struct {
	mu      sync.Mutex
	ids     map[uuid.UUID]bool
	where   map[string]int // answers by durable
	refused int            // answers 503
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
				if err != nil || code != 200 && (code != 503 || took < intake.Deadline) {
					t.Errorf("got %d %s, %v", code, answer, err)
					return
				}
				l.mu.Lock()
				l.slowest = max(l.slowest, took)
				if code == 200 {
					a := decodeAnswer(t, answer)
					l.ids[a.EventID] = true
					l.where[a.Durable]++
				} else {
					l.refused++
				}
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

package receiver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/eventstore"
	"upcall/internal/intake"
	"upcall/internal/stream"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"receiver": beReceiver, natstest.Child: natstest.Serve})
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// start starts a receiver that ignores tokens.
func start(t *testing.T, cfg Config) *servetest.Service {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Admission.TokenPolicy = admission.TokenOff
	cfg.DatabaseURL = pgbouncer.Between(t, cfg.DatabaseURL)
	return servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error { return Run(ctx, cfg, public, admin) })
}

// check returns what the receiver's check of the database at the start finds.
func check(t *testing.T, cfg Config) error {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.DatabaseURL = pgbouncer.Between(t, cfg.DatabaseURL)
	janitor, err := cfg.openJanitor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer janitor.Pool.Close()
	return checkDatabase(t.Context(), janitor)
}

// mistake returns the error that a receiver ends with at its start. If the check, on which
// that rests, finds nothing, the receiver would serve until the test's end.
func mistake(t *testing.T, cfg Config) error {
	t.Helper()
	if err := check(t, cfg); !isMistake(err) {
		t.Fatalf("the check of the database finds no mistake: %v", err)
	}
	return start(t, cfg).Wait()
}

// beReceiver is a child process that runs a receiver until it is killed. Its arguments are the
// database's URL, the spool's directory, the key's URL and perhaps the stream's. It prints its address.
func beReceiver() {
	cfg := Config{
		DatabaseURL: os.Args[1], SpoolDir: os.Args[2], SpoolMinFreeBytes: -1, TrustKeyURLs: []string{os.Args[3]},
		Admission: admission.Config{TokenPolicy: admission.TokenOff}, Logger: slog.New(slog.DiscardHandler),
	}
	if len(os.Args) > 4 {
		cfg.Stream = &stream.Config{URL: os.Args[4]}
	}
	proc.Serve(func(ctx context.Context, public, admin net.Listener) error { return Run(ctx, cfg, public, admin) })
}

// An answered callback, as its sender sees it.
type answered struct {
	code int
	body string
	took time.Duration
	err  error // if there was no answer
}

// call sends a signed callback.
func call(client *http.Client, base, keyURL, body string) answered {
	r, err := ossfake.Callback(context.Background(), base, "/oss/callback", string(callbackspec.Form), body, keyURL)
	if err != nil {
		return answered{err: err}
	}
	started := time.Now()
	response, err := client.Do(r)
	if err != nil {
		return answered{err: err}
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return answered{response.StatusCode, string(answer), time.Since(started), err}
}

// unavailable reports whether the answer tells the sender to retry.
func (r answered) unavailable() bool {
	return r.code == 503 && strings.Contains(r.body, `"unavailable"`)
}

// late reports whether the receiver's deadline has passed, because of a slow machine.
func (r answered) late() bool { return r.code == 503 && r.took >= intake.Deadline }

func status(t *testing.T, url string) int {
	t.Helper()
	code, _ := servetest.Get(t, url)
	return code
}

// wantRows checks that each event has one row in the database, and that there are at most that
// many other rows.
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
			t.Errorf("%s has two rows", id)
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
		t.Errorf("%d of %d acknowledged callbacks are lost, there are %d rows, and %d callbacks were refused",
			lost, len(ids), len(seen), others)
	}
}

// tooSlow is how long an answer takes that waits without a limit. On a slow, busy machine, an
// answer may take longer than the five seconds that OSS waits; make chaos checks those.
const tooSlow = 15 * time.Second

// A load is a group of clients that send callbacks, some of them twice.
type load struct {
	mu      sync.Mutex
	ids     map[uuid.UUID]bool // of the events that were answered 200
	where   map[string]int     // answers 200 by durable
	refused int                // other outcomes, whose callbacks may have rows
	slowest time.Duration
	stop    func()
}

// startLoad sends until stop. Outcomes other than 200 must be expected. A client that gets no
// answer stops.
func startLoad(t *testing.T, base, keyURL string, clients int, expected func(answered) bool) *load {
	l := &load{ids: make(map[uuid.UUID]bool), where: make(map[string]int)}
	name := uuid.NewString() // so that loads send different callbacks
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
				got := call(client, base, keyURL, fmt.Sprintf("bucket=demo&object=%s&reqId=%d-%d", name, c, i/10*10+i%9))
				if (got.code != 200 || got.err != nil) && !expected(got) {
					t.Errorf("got %d %s, %v", got.code, got.body, got.err)
					return
				}
				l.note(t, got)
				if got.err != nil {
					return
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(done); group.Wait() })
	t.Cleanup(l.stop)
	return l
}

func (l *load) note(t *testing.T, got answered) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, got.took)
	if got.code != 200 || got.err != nil {
		l.refused++
		return
	}
	var answer struct {
		EventID uuid.UUID `json:"event_id"`
		Durable string    `json:"durable"`
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil {
		t.Errorf("answer %s: %v", got.body, err)
	}
	l.ids[answer.EventID] = true
	l.where[answer.Durable]++
}

func (l *load) answers(durable string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.where[durable]
}

func (l *load) refusals() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

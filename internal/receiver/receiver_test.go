package receiver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/ossemu"
	"upcall/migrations"
)

// running is a receiver that runs for a test.
type running struct {
	public, admin string       // base URLs
	wait, stop    func() error // both return what Run returned; stop ends it before
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Admission.TokenPolicy = admission.TokenOff
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, public, admin) }()
	wait := sync.OnceValue(func() error { return <-ended })
	stop := func() error { cancel(); return wait() }
	t.Cleanup(func() { stop() })
	return &running{"http://" + public.Addr().String(), "http://" + admin.Addr().String(), wait, stop}
}

// keyServer serves the emulator's public key.
func keyServer(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, ossemu.PublicKeyPEM)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/key.pem"
}

// call sends a signed callback and returns the status, the answer and the time it took.
func call(client *http.Client, base, keyURL, body string) (int, string, time.Duration, error) {
	const target = "/oss/callback"
	r, err := http.NewRequest(http.MethodPost, base+target, strings.NewReader(body))
	if err != nil {
		return 0, "", 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", ossemu.SignCallback(target, []byte(body)))
	r.Header.Set("x-oss-pub-key-url", base64.StdEncoding.EncodeToString([]byte(keyURL)))
	started := time.Now()
	response, err := client.Do(r)
	if err != nil {
		return 0, "", 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, string(answer), time.Since(started), err
}

func status(t *testing.T, address string) int {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// TestPostgresStopsUnderLoad: callbacks are refused in time while PostgreSQL is away,
// the receiver recovers by itself, and what was answered 200 is a row.
func TestPostgresStopsUnderLoad(t *testing.T) {
	t.Parallel()
	database, keyURL := startPostgres(t), keyServer(t)
	receiver := start(t, Config{DatabaseURL: database.server.URL(), TrustKeyURLs: []string{keyURL}})

	const clients = 16
	var (
		mu       sync.Mutex
		accepted int
		refused  int
		slowest  time.Duration
		group    sync.WaitGroup
	)
	stop := make(chan struct{})
	firstAccepted, firstRefused := make(chan struct{}), make(chan struct{})
	for c := range clients {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				code, answer, took, err := call(client, receiver.public, keyURL, fmt.Sprintf("bucket=demo&object=%d&reqId=%d-%d", c, c, i))
				mu.Lock()
				slowest = max(slowest, took)
				switch {
				case err != nil:
					t.Errorf("no answer: %v", err)
				case code == 200:
					if accepted++; accepted == 200 {
						close(firstAccepted)
					}
				case code == 503 && strings.Contains(answer, `"unavailable"`):
					if refused++; refused == 50 {
						close(firstRefused)
					}
				default:
					t.Errorf("got %d %s", code, answer)
				}
				mu.Unlock()
			}
		})
	}
	<-firstAccepted
	if err := database.server.Kill(); err != nil {
		t.Fatal(err)
	}
	<-firstRefused
	if got := status(t, receiver.admin+"/readyz"); got != 503 {
		t.Errorf("readyz without PostgreSQL: %d", got)
	}
	database.restart(t)
	client := &http.Client{}
	for i := 0; ; i++ { // it recovers by itself
		if code, _, _, err := call(client, receiver.public, keyURL, fmt.Sprintf("bucket=demo&object=back&reqId=back-%d", i)); err != nil {
			t.Fatal(err)
		} else if code == 200 {
			mu.Lock()
			accepted++
			mu.Unlock()
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("it did not recover")
		}
	}
	close(stop)
	group.Wait()
	if err := receiver.stop(); err != nil {
		t.Error(err)
	}
	if slowest > tooSlow {
		t.Errorf("the slowest answer took %s", slowest)
	}
	pool, err := eventstore.Open(t.Context(), database.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var rows int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	// A callback whose answer was 503 may be a row all the same: the commit can have
	// been on its way when PostgreSQL stopped. One that was answered 200 must be.
	if rows < accepted || rows > accepted+refused {
		t.Errorf("%d rows for %d accepted and %d refused callbacks", rows, accepted, refused)
	}
}

func TestRefusesOldSchema(t *testing.T) {
	t.Parallel()
	receiver := start(t, Config{DatabaseURL: dbtest.Empty(t)})
	err := receiver.wait()
	if !errors.Is(err, migrations.ErrTooOld) || !strings.Contains(err.Error(), "receiver migrate up") {
		t.Errorf("got %v, want ErrTooOld and the command to run", err)
	}
}

// TestStartsWithoutDatabase: the receiver is up, not ready, and refuses callbacks.
func TestStartsWithoutDatabase(t *testing.T) {
	t.Parallel()
	keyURL := keyServer(t)
	receiver := start(t, Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", TrustKeyURLs: []string{keyURL}})
	code, answer, _, err := call(http.DefaultClient, receiver.public, keyURL, "bucket=demo&object=a&reqId=1")
	if err != nil || code != 503 || !strings.Contains(answer, `"unavailable"`) {
		t.Errorf("got %d %s, %v", code, answer, err)
	}
	if got := status(t, receiver.admin+"/readyz"); got != 503 {
		t.Errorf("readyz: %d", got)
	}
	if got := status(t, receiver.admin+"/livez"); got != 200 {
		t.Errorf("livez: %d", got)
	}
	if err := receiver.stop(); err != nil {
		t.Error(err)
	}
}

func TestCheckReportsAllMistakes(t *testing.T) {
	t.Parallel()
	err := Config{Admission: admission.Config{CallbackPath: "x", PublicURL: "y", TokenPolicy: "z"}, TrustKeyURLs: []string{"w"}}.Check()
	if err == nil || len(strings.Split(err.Error(), "\n")) != 4 {
		t.Errorf("got %v, want four lines", err)
	}
}

func TestMain(m *testing.M) {
	child()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

package receiver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// A stall stands before PostgreSQL and, while it is locked, passes nothing on.
type stall struct{ sync.RWMutex }

// newStall returns a stall, and the URL of the database behind it.
func newStall(t *testing.T, databaseURL string) (*stall, string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	behind, gate := u.Host, new(stall)
	listener := servetest.Listen(t)
	u.Host = listener.Addr().String()
	pass := func(to, from net.Conn) {
		defer to.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			gate.RLock()
			gate.RUnlock()
			if _, wrong := to.Write(buffer[:n]); err != nil || wrong != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", behind)
			if err != nil {
				client.Close()
				continue
			}
			go pass(server, client)
			go pass(client, server)
		}
	}()
	return gate, u.String()
}

// TestStartAndStopInAStall: while PostgreSQL accepts connections and answers nothing, a receiver
// starts, answers its first callbacks, and stops, each well within the five seconds of OSS.
func TestStartAndStopInAStall(t *testing.T) {
	t.Parallel()
	direct, keyURL := dbtest.URL(t), ossfake.KeyURL(t)
	for _, spools := range []bool{false, true} {
		t.Run(fmt.Sprint("spool ", spools), func(t *testing.T) {
			t.Parallel()
			gate, through := newStall(t, direct)
			cfg := Config{DatabaseURL: through + "&connect_timeout=5", TrustKeyURLs: []string{keyURL}, SpoolMinFreeBytes: -1}
			want := http.StatusServiceUnavailable
			if spools {
				cfg.SpoolDir, want = t.TempDir(), http.StatusOK
			}
			gate.Lock()
			locked := true
			defer func() {
				if locked {
					gate.Unlock()
				}
			}()
			began := time.Now()
			receiver := start(t, cfg)
			got := call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%v", spools))
			if took := time.Since(began); got.code != want || took > 4*time.Second {
				t.Errorf("the first callback was answered %d after %v: %v", got.code, took, got.err)
			}
			began = time.Now()
			if err := receiver.Stop(); err != nil || time.Since(began) > 4*time.Second {
				t.Errorf("stopped after %v: %v", time.Since(began), err)
			}

			// The same with connections that stand.
			gate.Unlock()
			locked = false
			receiver = start(t, cfg)
			wait.Until(t, "a callback is recorded", func() bool {
				return strings.Contains(call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=b&reqId=2").body, `"postgres"`)
			})
			gate.Lock()
			locked = true
			call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=c&reqId=3%v", spools))
			began = time.Now()
			if err := receiver.Stop(); err != nil || time.Since(began) > 4*time.Second {
				t.Errorf("stopped after %v: %v", time.Since(began), err)
			}
		})
	}
}

// TestMistakeIsFoundLate: a database that answers only after the receiver has begun to serve
// ends it all the same if it can never work.
func TestMistakeIsFoundLate(t *testing.T) {
	t.Parallel()
	gate, through := newStall(t, dbtest.Empty(t))
	gate.Lock()
	cfg := Config{DatabaseURL: through + "&connect_timeout=5", Logger: slog.New(slog.DiscardHandler),
		Admission: admission.Config{TokenPolicy: admission.TokenOff}}
	receiver := servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error { return Run(ctx, cfg, public, admin) })
	wait.Until(t, "it serves", func() bool {
		response, err := http.Get(receiver.Admin + "/livez")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	})
	gate.Unlock()
	if err := receiver.Wait(); !isMistake(err) {
		t.Errorf("it ended with %v", err)
	}
}

// TestSlowReplaysSayNothing: strangers who replay a callback, and send its last byte just before
// the deadline, do not make PostgreSQL count as away for others.
func TestSlowReplaysSayNothing(t *testing.T) {
	t.Parallel()
	databaseURL, keyURL := dbtest.URL(t), ossfake.KeyURL(t)
	pool := dbtest.Open(t, databaseURL, eventstore.Open)
	for _, sql := range []string{
		"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$",
		"CREATE TRIGGER slow AFTER INSERT ON upcall.upload_events FOR EACH STATEMENT EXECUTE FUNCTION slow()",
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	receiver := start(t, Config{DatabaseURL: databaseURL, TrustKeyURLs: []string{keyURL}})
	wait.Until(t, "a callback is recorded", func() bool {
		return call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId=0").code == http.StatusOK
	})
	var replays sync.WaitGroup
	for i := range 20 {
		r, err := ossfake.Callback(t.Context(), receiver.Public, "/oss/callback", "application/x-www-form-urlencoded",
			fmt.Sprintf("bucket=demo&object=a&reqId=slow%d", i), keyURL)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		replays.Go(func() {
			conn, err := net.Dial("tcp", r.URL.Host)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n", r.URL.RequestURI(), len(body))
			r.Header.Write(conn)
			conn.Write([]byte("\r\n"))
			conn.Write(body[:len(body)-1])
			time.Sleep(3960*time.Millisecond + time.Duration(i)*time.Millisecond)
			conn.Write(body[len(body)-1:])
			io.Copy(io.Discard, conn)
		})
	}
	done := make(chan struct{})
	go func() { replays.Wait(); close(done) }()
	for n := 1; ; n++ {
		if got := call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=b&reqId=%d", n)); got.code != http.StatusOK && !got.late() {
			t.Errorf("a prompt callback got %d %s after %v", got.code, got.body, got.took)
		}
		if receiver.Metric(t, "upcall_database_away") != 0 {
			t.Error("PostgreSQL counts as away")
		}
		select {
		case <-done:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

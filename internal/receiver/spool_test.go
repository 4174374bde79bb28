package receiver

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"upcall/internal/testing/wait"
)

// TestSpoolBridgesOutage: PostgreSQL is killed under load and comes back; every callback
// is answered 200 in time, and is one row in the end.
func TestSpoolBridgesOutage(t *testing.T) {
	t.Parallel()
	database, keyURL := startPostgres(t), keyServer(t)
	receiver := start(t, Config{DatabaseURL: database.server.URL(), TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1})
	l := startLoad(t, receiver.public, keyURL, 16)
	for round := range 2 {
		before := l.answers("postgres")
		wait.Until(t, "PostgreSQL takes callbacks", func() bool { return l.answers("postgres") >= before+300 })
		if err := database.server.Kill(); err != nil {
			t.Fatal(err)
		}
		before = l.answers("spool")
		wait.Until(t, "the spool takes callbacks", func() bool { return l.answers("spool") >= before+300 })
		if got := status(t, receiver.admin+"/readyz"); got != 200 {
			t.Errorf("readyz with a spool: %d", got)
		}
		if depth, away := metric(t, receiver.admin, "upcall_spool_depth"), metric(t, receiver.admin, "upcall_database_away"); depth == 0 || away != 1 {
			t.Errorf("round %d: depth %v, away %v", round, depth, away)
		}
		database.restart(t)
	}
	before := l.answers("postgres")
	wait.Until(t, "PostgreSQL takes callbacks again, and has the spool's", func() bool {
		return l.answers("postgres") >= before+300 && metric(t, receiver.admin, "upcall_spool_depth") == 0
	})
	l.stop()
	if l.slowest > tooSlow {
		t.Errorf("the slowest answer took %s", l.slowest)
	}
	for _, name := range []string{"upcall_spool_depth", "upcall_spool_rejected", "upcall_spool_damaged_files", "upcall_spool_oldest_seconds", "upcall_database_away"} {
		// A commit that was slow may have sent the last ones to the spool once more.
		wait.Until(t, name+" is 0 at the end", func() bool { return metric(t, receiver.admin, name) == 0 })
	}
	if err := receiver.stop(); err != nil {
		t.Error(err)
	}
	wantRows(t, database.server.URL(), l.ids, l.refused)
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
	wait.Until(t, "the spool takes callbacks", func() bool { return l.answers("spool") >= 200 })
	l.stop()
	if l.slowest > tooSlow {
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
		if code != 503 || !strings.Contains(answer, `"unavailable"`) || took > tooSlow || i < 10 {
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

package receiver

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"upcall/internal/dbtest"
	"upcall/internal/spool"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// TestSpoolBridgesOutage kills and restarts PostgreSQL under load. Every callback is answered 200
// in time, and has one row in the end.
func TestSpoolBridgesOutage(t *testing.T) {
	t.Parallel()
	database, keyURL := dbtest.NewServer(t), ossfake.KeyURL(t)
	receiver := start(t, Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1})
	l := startLoad(t, receiver.Public, keyURL, 16, answered.late)
	for round := range 2 {
		before := l.answers("postgres")
		wait.Until(t, "PostgreSQL records callbacks", func() bool { return l.answers("postgres") >= before+300 })
		database.Kill(t)
		before = l.answers("spool")
		wait.Until(t, "the spool takes callbacks", func() bool { return l.answers("spool") >= before+300 })
		if got := status(t, receiver.Admin+"/readyz"); got != 200 {
			t.Errorf("readyz with a spool: %d", got)
		}
		if depth, away := receiver.Metric(t, "upcall_spool_depth"), receiver.Metric(t, "upcall_database_away"); depth == 0 || away != 1 {
			t.Errorf("round %d: depth %v, away %v", round, depth, away)
		}
		database.Restart(t)
	}
	before := l.answers("postgres")
	wait.Until(t, "PostgreSQL records callbacks again, and the spool is drained", func() bool {
		return l.answers("postgres") >= before+300 && receiver.Metric(t, "upcall_spool_depth") == 0
	})
	l.stop()
	if l.slowest > tooSlow {
		t.Errorf("the slowest answer took %s", l.slowest)
	}
	for _, name := range []string{"upcall_spool_depth", "upcall_spool_rejected", "upcall_spool_damaged_files",
		"upcall_spool_oldest_seconds", "upcall_database_away"} {
		// A slow commit may have sent the last callbacks to the spool again.
		wait.Until(t, name+" is 0 at the end", func() bool { return receiver.Metric(t, name) == 0 })
	}
	if err := receiver.Stop(); err != nil {
		t.Error(err)
	}
	wantRows(t, database.URL(), l.ids, l.refused)
}

// TestSilentPostgres has a PostgreSQL that accepts connections but never answers.
func TestSilentPostgres(t *testing.T) {
	t.Parallel()
	silent := servetest.Listen(t)
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
	keyURL := ossfake.KeyURL(t)
	receiver := start(t, Config{DatabaseURL: "postgres://nobody@" + silent.Addr().String() + "/none?sslmode=disable",
		TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1})
	status(t, receiver.Admin+"/livez") // waits until it serves, after its check of the schema
	l := startLoad(t, receiver.Public, keyURL, 8, answered.late)
	wait.Until(t, "the spool takes callbacks", func() bool { return l.answers("spool") >= 200 })
	l.stop()
	if l.slowest > tooSlow {
		t.Errorf("the slowest answer took %s", l.slowest)
	}
}

func TestSpoolFull(t *testing.T) {
	t.Parallel()
	keyURL := ossfake.KeyURL(t)
	receiver := start(t, Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", TrustKeyURLs: []string{keyURL},
		SpoolDir: t.TempDir(), SpoolMaxBytes: 100 << 10, SpoolMinFreeBytes: -1})
	for i := 0; ; i++ {
		got := call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%d", i))
		if got.err != nil || i > 1000 {
			t.Fatal(i, got.err)
		}
		if got.code == 200 {
			continue
		}
		if !got.unavailable() || got.took > tooSlow || i < 10 {
			t.Errorf("callback %d got %+v", i, got)
		}
		break
	}
	if got := status(t, receiver.Admin+"/readyz"); got != 503 {
		t.Errorf("readyz: %d", got)
	}
}

func TestSpoolInUse(t *testing.T) {
	t.Parallel()
	cfg := Config{DatabaseURL: "postgres://nobody@127.0.0.1:1/none", SpoolDir: t.TempDir()}
	ended := make(chan error, 2)
	for range 2 {
		receiver := start(t, cfg)
		go func() { ended <- receiver.Wait() }()
	}
	// The first serves; the other returns ErrInUse.
	err := <-ended
	if !errors.Is(err, spool.ErrInUse) || !strings.Contains(err.Error(), cfg.SpoolDir) {
		t.Errorf("got %v", err)
	}
}

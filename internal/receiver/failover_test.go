package receiver

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// TestFailover stalls a synchronous standby, kills the primary and promotes the standby:
// nothing that was acknowledged is lost, wherever it was when the primary ended.
func TestFailover(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "standby")
	primary, keyURL := dbtest.NewServer(t), ossfake.KeyURL(t)
	link := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		"link", "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", primary.Port()))
	if err := link.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Stop)
	address := fmt.Sprintf("127.0.0.1:%d", primary.Port())
	standby := dbtest.NewStandby(t, strings.Replace(primary.URL(), address, link.Listen, 1))
	if err := primary.Synchronous(t.Context()); err != nil {
		t.Fatal(err)
	}
	both := strings.Replace(primary.URL(), address, fmt.Sprintf("%s,127.0.0.1:%d", address, standby.Port()), 1)
	receiver := start(t, Config{DatabaseURL: both + "&target_session_attrs=read-write", TrustKeyURLs: []string{keyURL},
		SpoolDir: t.TempDir(), SpoolMinFreeBytes: -1})
	l := &load{ids: make(map[uuid.UUID]bool), where: make(map[string]int)}
	send := func(name string, callbacks int) {
		var group sync.WaitGroup
		for i := range callbacks {
			group.Go(func() {
				got := call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=%s&reqId=%s-%d", name, name, i))
				if got.code != 200 {
					t.Errorf("%s %d: %+v", name, i, got)
				}
				l.note(t, got)
			})
		}
		group.Wait()
	}
	send("before", 4)
	if _, err := link.Toxics.AddToxicJson(strings.NewReader(
		`{"name":"stall","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`)); err != nil {
		t.Fatal(err)
	}
	send("stalled", 4)
	if l.answers("spool") < 4 {
		t.Errorf("%d callbacks are in the spool", l.answers("spool"))
	}
	// The receiver tries to move them meanwhile, which must wait for the standby, too.
	pool := dbtest.Open(t, primary.URL(), eventstore.Open)
	for _, waits := range []bool{true, false, true, false} {
		wait.Until(t, fmt.Sprintf("a commit of callbacks waits for the standby: %t", waits), func() bool {
			var waiting bool // others wait as well, such as one that makes next month's partition, for longer
			err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE wait_event = 'SyncRep' AND query LIKE '%upcall.callback_ids%')`).Scan(&waiting)
			if err != nil {
				t.Fatal(err)
			}
			return waiting == waits || receiver.Metric(t, "upcall_spool_depth") == 0
		})
	}
	primary.Kill(t)
	link.Stop()
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "the spool is empty", func() bool { return receiver.Metric(t, "upcall_spool_depth") == 0 })
	send("after", 4)
	wait.Until(t, "the spool is empty again", func() bool { return receiver.Metric(t, "upcall_spool_depth") == 0 })
	wantRows(t, standby.URL(), l.ids, 0)
}

package stream

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/event"
	"upcall/internal/kept"
	"upcall/internal/natsserver"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/wait"
)

// openGroup opens a group and waits until each stream is led by another server.
func openGroup(t testing.TB, c Config) *Group {
	t.Helper()
	g, err := OpenGroup(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	balanced(t, g)
	return g
}

// balanced waits until each stream is led by another server, and has a connection to another one.
func balanced(t testing.TB, g *Group) {
	t.Helper()
	wait.Until(t, "leaders and connections are on three servers each", func() bool {
		leaders, servers := make(map[string]bool), make(map[string]bool)
		for _, p := range g.parts {
			if c := p.leading(); c != nil && p.reachable() == nil {
				leaders[c.Leader], servers[p.conn.ConnectedServerName()] = true, true
			}
		}
		return len(leaders) == streams && len(servers) == streams
	})
}

// of returns numbers of events whose first stream is the given one.
func (g *Group) numbers(place, from, n int) (numbers []int) {
	for ; len(numbers) < n; from++ {
		if g.order(numbered(from).ID)[0] == g.parts[place] {
			numbers = append(numbers, from)
		}
	}
	return numbers
}

// TestGroupMovesWhatWasPut: all streams are used and emptied, and a repeat is known.
func TestGroupMovesWhatWasPut(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	g := openGroup(t, c)
	var group sync.WaitGroup
	for n := range 60 {
		group.Go(func() {
			if duplicate, err := g.Put(putting(t), numbered(n)); err != nil || duplicate {
				t.Errorf("put %d: %v, duplicate %v", n, err, duplicate)
			}
		})
	}
	group.Wait()
	for _, p := range g.parts {
		if waiting, _ := held(t, p); waiting < 10 {
			t.Errorf("stream %s has %d", p.config.Name, waiting)
		}
	}
	wait.Until(t, "the depth is known", func() bool { return g.Depth() >= 60 && !g.Stats().Oldest.IsZero() })
	var listed int
	if err := g.Read(putting(t), func(kept.Entry) error { listed++; return nil }); err != nil || listed != 60 {
		t.Errorf("%d are listed: %v", listed, err)
	}
	m := new(fallbacktest.Memory)
	wait.Until(t, "all are recorded", func() bool {
		moved, err := g.Move(putting(t), m.Record, 7)
		if err != nil || moved > 7 {
			t.Logf("moved %d: %v", moved, err)
		}
		return len(m.Events) == 60
	})
	wait.Until(t, "it is empty", func() bool { return g.Depth() == 0 && g.Stats().Oldest.IsZero() })
}

// TestGroupOutlivesLeader stops the server that leads a stream, and callbacks whose stream that is are put into another
// one before any election can end.
func TestGroupOutlivesLeader(t *testing.T) {
	t.Parallel()
	const election = 2 * time.Second // it takes four at least, since the last heartbeat, of which there is one a second
	servers := natstest.Start(t, nil)
	c, _ := config(t, servers)
	c.MonitorURL = "" // one of them will not answer
	g := openGroup(t, c)
	first := 0
	wait.Until(t, "no callback waits for an election", func() bool {
		balanced(t, g)
		place := first % streams
		leader := g.parts[place].leading().Leader
		i := slices.IndexFunc(servers.Servers, func(s *natsserver.Server) bool { return s.Name == leader })
		process := servers.Servers[i].Process()
		if err := process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		took := make([]time.Duration, 10)
		var group sync.WaitGroup
		for i, n := range g.numbers(place, first*1000, len(took)) {
			group.Go(func() {
				began := time.Now()
				if _, err := g.Put(putting(t), numbered(n)); err != nil {
					t.Errorf("put %d: %v", n, err)
				}
				took[i] = time.Since(began)
			})
		}
		group.Wait()
		if err := process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		first++
		t.Logf("stream %d without %s: slowest %s", place, leader, slices.Max(took))
		return slices.Max(took) < election
	})
	balanced(t, g)
}

// TestGroupDeadLetters: dead letters of all streams are listed, retried and discarded together.
func TestGroupDeadLetters(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	g := openGroup(t, c)
	numbers := slices.Concat(g.numbers(0, 0, 2), g.numbers(1, 0, 2), g.numbers(2, 0, 2))
	for _, n := range numbers {
		if _, err := g.Put(putting(t), numbered(n)); err != nil {
			t.Fatal(err)
		}
	}
	m := &fallbacktest.Memory{Fail: func(*event.Event) error { return event.ErrUnstorable }}
	dead := func(want int) func() bool {
		return func() bool {
			_, _ = g.Move(putting(t), m.Record, 20)
			letters, err := g.DeadLetters(putting(t))
			return err == nil && len(letters) == want && g.Stats().DeadLetters == want
		}
	}
	wait.Until(t, "all are dead", dead(6))
	if !g.HasDeadLetter(numbered(numbers[3]).ID) {
		t.Error("a dead letter is not known")
	}
	for name, bad := range map[string][]uuid.UUID{
		"unknown":  append(fallbacktest.IDs(numbers...), uuid.New()),
		"repeated": fallbacktest.IDs(numbers[0], numbers[0]),
	} {
		for _, err := range []error{g.Retry(putting(t), bad, ignore), g.Discard(putting(t), bad, ignore)} {
			if !errors.Is(err, ErrNoDeadLetter) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	inspected, err := InspectGroup(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer inspected.Close()
	seen := make(map[uuid.UUID]int)
	visit := func(e kept.Entry) error { seen[e.ID]++; return nil }
	if err := inspected.Discard(putting(t), fallbacktest.IDs(numbers[0], numbers[2]), visit); err != nil {
		t.Fatal(err)
	}
	if err := inspected.Retry(putting(t), fallbacktest.IDs(numbers[1:2]...), visit); err != nil {
		t.Fatal(err)
	}
	want := make(map[uuid.UUID]int)
	for _, n := range numbers[:3] {
		want[numbered(n).ID] = 1
	}
	if !maps.Equal(seen, want) {
		t.Errorf("visited %v", seen)
	}
	m.Fail = nil
	wait.Until(t, "one is recorded, three are dead", func() bool { return dead(3)() && m.Has(numbers[1]) })
}

// TestGroupOfOne: a stream from before there were groups is read, and gets company from a receiver.
func TestGroupOfOne(t *testing.T) {
	t.Parallel()
	c, _ := config(t, cluster(t))
	if _, err := InspectGroup(t.Context(), c); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "a receiver makes it") {
		t.Errorf("without a stream: %v", err)
	}
	fill(t, open(t, c), 0, 5)
	read := func(g *Group) (n int) {
		if err := g.Read(putting(t), func(kept.Entry) error { n++; return nil }); err != nil {
			t.Error(err)
		}
		return n
	}
	inspected, err := InspectGroup(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer inspected.Close()
	if n := read(inspected); n != 5 || len(inspected.parts) != 1 {
		t.Errorf("%d callbacks in %d streams", n, len(inspected.parts))
	}
	if n := read(openGroup(t, c)); n != 5 {
		t.Errorf("%d callbacks", n)
	}
}

// TestOrder: streams that are late are asked last.
func TestOrder(t *testing.T) {
	t.Parallel()
	g := &Group{parts: []*Stream{{}, {}, {}}}
	id := uuid.UUID{15: 1}
	order := func() (places []int) {
		for _, p := range g.order(id) {
			places = append(places, slices.Index(g.parts, p))
		}
		return places
	}
	if diff := cmp.Diff([]int{1, 2, 0}, order()); diff != "" {
		t.Error(diff)
	}
	g.parts[1].markLate()
	if diff := cmp.Diff([]int{2, 0, 1}, order()); diff != "" {
		t.Error(diff)
	}
	g.parts[1].late.Store(time.Now().UnixNano())
	if diff := cmp.Diff([]int{1, 2, 0}, order()); diff != "" {
		t.Error(diff)
	}
}

// TestUneven: a stream gets another leader only if that is there, has all of it, and leads none.
func TestUneven(t *testing.T) {
	t.Parallel()
	led := func(leader string, followers ...string) *jetstream.ClusterInfo {
		c := &jetstream.ClusterInfo{Leader: leader}
		for _, f := range followers {
			name := strings.TrimRight(f, "-?")
			c.Replicas = append(c.Replicas, &jetstream.PeerInfo{Name: name, Current: !strings.HasSuffix(f, "?"), Offline: strings.HasSuffix(f, "-")})
		}
		return c
	}
	for name, tt := range map[string]struct {
		clusters []*jetstream.ClusterInfo
		stream   int
		server   string
	}{
		"even":            {[]*jetstream.ClusterInfo{led("a", "b", "c"), led("c", "a", "b"), led("b", "a", "c")}, 0, ""},
		"all on one":      {[]*jetstream.ClusterInfo{led("b", "c", "a"), led("b", "c", "a"), led("b", "a", "c")}, 1, "a"},
		"two on one":      {[]*jetstream.ClusterInfo{led("a", "b", "c"), led("b", "c", "a"), led("b", "a", "c")}, 2, "c"},
		"server away":     {[]*jetstream.ClusterInfo{led("a", "b", "c-"), led("b", "c-", "a"), led("b", "a", "c-")}, 0, ""},
		"server behind":   {[]*jetstream.ClusterInfo{led("a", "b", "c"), led("b", "c", "a"), led("b", "a", "c?")}, 0, ""},
		"one unknown":     {[]*jetstream.ClusterInfo{led("a", "b", "c"), led("a", "b", "c"), nil}, 0, ""},
		"not a member":    {[]*jetstream.ClusterInfo{led("a", "b", "d"), led("b", "a", "e"), led("b", "a", "b")}, 0, ""},
		"more than three": {[]*jetstream.ClusterInfo{led("a", "b", "c"), led("a", "d", "e"), led("b", "d", "e")}, 1, "d"},
	} {
		if stream, server := uneven(tt.clusters); stream != tt.stream || server != tt.server {
			t.Errorf("%s: stream %d to %q, want %d to %q", name, stream, server, tt.stream, tt.server)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{"nats://a": "a:4222", "tls://u:p@a:1": "a:1", "nats://[::1]": "[::1]:4222", "": "", "%": ""} {
		if got := address(server); got != want {
			t.Errorf("%s: %q, want %q", server, got, want)
		}
	}
	c := Config{URL: "nats://a,b,c", Logger: nil, place: 2}
	if got := c.urls(); got != "nats://c,nats://a,nats://b" {
		t.Errorf("servers of the third: %s", got)
	}
}

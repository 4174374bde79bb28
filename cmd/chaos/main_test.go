package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"upcall/internal/cli"
	"upcall/internal/loadgen"
	"upcall/internal/testing/toolchain"
)

// TestChaos is a short run with every fault. Beside other tests, on a slow machine, answers
// may take longer than the default allows.
func TestChaos(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "standby")
	var out bytes.Buffer
	args := []string{"--callbacks", "6000", "--clients", "16", "--kills", "3", "--outages", "2", "--cuts", "1",
		"--stalls", "1", "--delays", "1", "--fills", "1", "--restarts", "1", "--failovers", "1",
		"--holds", "1", "--hold-for", "4s", "--told", "600", "--slowest", "1m"}
	err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: &out, Err: os.Stderr})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	blanks := regexp.MustCompile(" +")
	for _, want := range []string{"3 SIGKILLs, 1 SIGTERMs, 2 stops of PostgreSQL, 1 cuts, 1 stalls, 1 delays", "1 failovers",
		"1 transactions held open for 4s", "1 pauses", "\ndelivered twice without a reason 0\n", "\nfaults that did not come 0\n",
		"acknowledged and lost", "recorded twice"} {
		if !strings.Contains(blanks.ReplaceAllString(out.String(), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

// TestLoss is a short run of the deliveries: the receiver that makes them is killed once.
func TestLoss(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	args := []string{"loss", "--events", "40", "--kills", "1", "--every", "2s", "--clients", "8", "--slowest", "1m"}
	if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: &out, Err: os.Stderr}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	blanks := regexp.MustCompile(" +")
	for _, want := range []string{"1 SIGKILLs", "1 pauses", "\nfaults that did not come 0\n", "\nreceivers killed while they delivered 1\n",
		"\ndelivered twice without a reason 0\n"} {
		if !strings.Contains(blanks.ReplaceAllString(out.String(), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

// TestRollup is a short run in which callbacks come hours late, and uploads are told of twice.
func TestRollup(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	args := []string{"rollup", "--callbacks", "2000", "--objects", "150", "--kills", "2", "--outages", "1", "--cuts", "0", "--failovers", "0",
		"--late", "100", "--every", "3s", "--clients", "8", "--slowest", "1m"}
	if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: &out, Err: os.Stderr}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	blanks := regexp.MustCompile(" +")
	for _, want := range []string{"2 SIGKILLs", "1 stops of PostgreSQL", "\nfaults that did not come 0\n",
		"\ncallbacks that waited in spools since up to 30h0m0s before 100\n", "\nuploads that a notification in a spool told of, too 50\n",
		"\nevents that were found behind better ones in the log 0\n", "\nof those, other in the roll-ups 0\n"} {
		if !strings.Contains(blanks.ReplaceAllString(out.String(), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

// TestVerdict checks that a run can fail.
func TestVerdict(t *testing.T) {
	t.Parallel()
	good := func() verdict {
		return verdict{seen: loadgen.Tally{Acknowledged: 1}, recorded: loadgen.Comparison{Recorded: 1}, told: &toldVerdict{events: 1, requests: 20, failed: 10,
			twice: map[string]int{"kill": 1}}, rolled: rolledVerdict{compared: 1}}
	}
	for name, change := range map[string]func(*verdict){
		"lost":                 func(v *verdict) { v.recorded.Lost = 1 },
		"doubled":              func(v *verdict) { v.recorded.Doubled = 1 },
		"wrong answer":         func(v *verdict) { v.seen.Wrong = []string{"403 forged"} },
		"slow answer":          func(v *verdict) { v.seen.Slowest = 5*time.Second + 1 },
		"missed fault":         func(v *verdict) { v.missed = 1 },
		"no event":             func(v *verdict) { v.told.events = 0 },
		"untold":               func(v *verdict) { v.told.untold = 1 },
		"invented":             func(v *verdict) { v.told.invented = 1 },
		"told twice":           func(v *verdict) { v.told.twice[unexplained] = 1 },
		"told during a pause":  func(v *verdict) { v.told.disturbed = 1 },
		"out of order":         func(v *verdict) { v.told.misplaced = 1 },
		"badly signed":         func(v *verdict) { v.told.bad = []string{"no signature"} },
		"disabled":             func(v *verdict) { v.told.ended = 1 },
		"too few failures":     func(v *verdict) { v.told.requests = 40 },
		"too much uncommitted": func(v *verdict) { v.told.most = mostUncommitted + 1 },
		"told early":           func(v *verdict) { v.told.held.early = 1 },
		"counted wrongly":      func(v *verdict) { v.rolled.differing = []string{"hours"} },
		"nothing counted":      func(v *verdict) { v.rolled.compared = 0 },
		"nothing superseded":   func(v *verdict) { v.rolled.found = 1 },
		"recovered too late":   func(v *verdict) { v.rolled.misplaced = 1 },
		"not shown":            func(v *verdict) { v.told.held.unseen = 1 },
		"nothing acknowledged": func(v *verdict) { v.seen.Acknowledged, v.recorded.Recorded = 0, 0 },
	} {
		v := good()
		if !v.good(5 * time.Second) {
			t.Fatal("a run without a fault is bad")
		}
		if change(&v); v.good(5 * time.Second) {
			t.Errorf("%s: the verdict is good", name)
		}
	}
}

// TestLoadLasts checks that callbacks are sent until every fault has come, however few were
// asked for.
func TestLoadLasts(t *testing.T) {
	t.Parallel()
	l := newLoad(nil, command{Callbacks: 2}, nil)
	for want := range 5 {
		if i, more := l.take(); !more || i != want {
			t.Fatalf("got callback %d, %v; want %d", i, more, want)
		}
	}
	l.faulted.Store(true)
	if i, more := l.take(); more || l.Begun() != 5 {
		t.Errorf("got callback %d of %d with all faults over", i, l.Begun())
	}
	one := newLoad(nil, command{Callbacks: 1}, nil)
	one.faulted.Store(true)
	if _, more := one.take(); !more {
		t.Error("no callback was sent, though one was asked for")
	}
}

// TestMissed checks that a run is excused from filling disks only if it may not mount them.
func TestMissed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		mountErr error
		done     map[string]int
		want     int
	}{
		"all":                           {nil, map[string]int{"kill": 2, "fill": 1}, 0},
		"one kill missing":              {nil, map[string]int{"kill": 1, "fill": 1}, 1},
		"no disk filled":                {nil, map[string]int{"kill": 2}, 1},
		"may not mount":                 {syscall.EPERM, map[string]int{"kill": 2}, 0},
		"may not mount, a kill too few": {syscall.EPERM, map[string]int{"kill": 1}, 1},
	} {
		f := newFaults(&world{mountErr: tt.mountErr}, nil, command{counts: counts{Kills: 2, Fills: 1}})
		if f.done = tt.done; f.missed() != tt.want {
			t.Errorf("%s: %d missed, want %d", name, f.missed(), tt.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--callbacks", "0"}, {"--clients", "0"}, {"--nope"}, {"extra"}} {
		if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: io.Discard, Err: io.Discard}); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"upcall/internal/cli"
	"upcall/internal/loadgen"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// TestMain runs what the drill starts of its own program: this one.
func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == initName:
		reap()
	case os.Args[0] == innerName, len(os.Args) > 1 && slices.Contains([]string{"delay", "nats"}, os.Args[1]):
		cli.Main("drill", run)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestDrill is a short run. Beside other tests, on a slow machine, answers may take longer than the
// default allows.
func TestDrill(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "drill")
	var out bytes.Buffer
	args := []string{"--faults", "3", "--hold", "0.6", "--rate", "30", "--clients", "32", "--slowest", "30s", "--verbose",
		"--only", "receiver killed", "--only", "primary cut off with a receiver", "--only", "standbys late and primary lost"}
	if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: &out, Err: os.Stderr}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	blanks := regexp.MustCompile(" +")
	for _, want := range []string{"\nreceiver killed ", "\nprimary cut off with a receiver ", "\nstandbys late and primary lost ",
		"\nacknowledged and lost 0\n", "\nrecorded twice 0\n", "\ncallbacks that no URL answered 200 0 (0.00 %)\n"} {
		if !strings.Contains(blanks.ReplaceAllString(out.String(), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

// TestEnds checks that nothing is left of a drill that is ended early, however it is.
func TestEnds(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "drill")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			temp := t.TempDir()
			if err := os.Chmod(filepath.Dir(temp), 0o755); err != nil {
				t.Fatal(err)
			}
			var messages bytes.Buffer
			cmd := exec.Cmd{Path: self, Args: []string{innerName}, Env: append(os.Environ(), "TMPDIR="+temp), Stdout: io.Discard, Stderr: &messages}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				cmd.Wait()
				close(ended)
			}()
			wait.Until(t, "PostgreSQL runs", func() bool {
				select {
				case <-ended:
					t.Fatalf("the drill ended: %s", &messages)
				default:
				}
				return len(running(t, temp)) > 0 && len(postmasters(t, temp)) > 0
			})
			cmd.Process.Signal(signal)
			<-ended
			wait.Until(t, "everything has ended and is removed", func() bool {
				left, err := os.ReadDir(temp)
				return err == nil && len(left) == 0 && len(running(t, temp)) == 0
			})
		})
	}
}

// running returns the command lines that mention a directory.
func running(t *testing.T, dir string) (lines []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err == nil && bytes.Contains(line, []byte(dir)) {
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

func postmasters(t *testing.T, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(running(t, dir), func(line string) bool { return !strings.Contains(line, "postgres -D") })
}

// TestReport checks that a run can fail.
func TestReport(t *testing.T) {
	t.Parallel()
	good := func() *report {
		return &report{config: config{Faults: 1, Slowest: 5 * time.Second, Engine: engineSpool}, outcomes: []outcome{{
			seen: loadgen.Tally{Acknowledged: 1, Slowest: 5 * time.Second}, recorded: loadgen.Comparison{Recorded: 1},
		}}}
	}
	for name, change := range map[string]func(r *report, o *outcome){
		"lost":                 func(_ *report, o *outcome) { o.recorded.Lost = 1 },
		"doubled":              func(_ *report, o *outcome) { o.recorded.Doubled = 1 },
		"refused":              func(_ *report, o *outcome) { o.seen.Wrong = []string{"403 forged"} },
		"slow":                 func(_ *report, o *outcome) { o.seen.Slowest++ },
		"without an answer":    func(_ *report, o *outcome) { o.seen.Unanswered = 1 },
		"unheard":              func(_ *report, o *outcome) { o.seen.Unheard = 1 },
		"a fault missing":      func(r *report, _ *outcome) { r.Faults = 2 },
		"nothing acknowledged": func(_ *report, o *outcome) { o.seen.Acknowledged = 0 },
	} {
		r := good()
		if !r.good() {
			t.Fatal("a run without a mistake is bad")
		}
		if change(r, &r.outcomes[0]); r.good() {
			t.Errorf("%s: the report is good", name)
		}
	}
	for name, change := range map[string]func(r *report, o *outcome){
		"unheard with one URL":      func(r *report, o *outcome) { r.OneURL, o.seen.Unheard = true, 1 },
		"unheard with no fallback":  func(r *report, o *outcome) { r.Engine, o.seen.Unheard = engineNone, 1 },
		"unheard with all away":     func(_ *report, o *outcome) { o.kind.away, o.seen.Unheard = true, 1 },
		"unanswered, receiver gone": func(_ *report, o *outcome) { o.kind.receiver, o.seen.Unanswered = true, 1 },
	} {
		r := good()
		if change(r, &r.outcomes[0]); !r.good() {
			t.Errorf("%s: the report is bad", name)
		}
	}
}

// TestChoose checks that every fault comes, in an order of its own for each seed, before one comes again.
func TestChoose(t *testing.T) {
	t.Parallel()
	order := func(seed uint64, n int, names ...string) (chosen []string) {
		kinds, err := choose(config{}.kinds(), names, n, rand.New(rand.NewPCG(seed, 0)))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range kinds {
			chosen = append(chosen, k.name)
		}
		return chosen
	}
	all := len(config{}.kinds())
	if slices.Equal(order(1, all), order(2, all)) || !slices.Equal(order(3, all), order(3, all)) {
		t.Error("the order does not follow from the seed")
	}
	twice := order(1, 2*all)
	for _, half := range [][]string{twice[:all], twice[all:]} {
		slices.Sort(half)
		if len(slices.Compact(half)) != all {
			t.Errorf("not every fault came: %q", half)
		}
	}
	if got := order(1, 3, "switchover"); !slices.Equal(got, []string{"switchover", "switchover", "switchover"}) {
		t.Errorf("got %q", got)
	}
	if _, err := choose(config{}.kinds(), []string{"earthquake"}, 1, rand.New(rand.NewPCG(1, 0))); err == nil {
		t.Error("there is a fault earthquake")
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--faults", "0"}, {"--rate", "0"}, {"--clients", "0"}, {"--hold", "0"}, {"--engine", "steam"},
		{"--without", "luck"}, {"--nope"}} {
		if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: io.Discard, Err: io.Discard}); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}
}

// TestLate checks that the proxy keeps what it reads for the time, in order, once it is told to.
func TestLate(t *testing.T) {
	t.Parallel()
	const by = 200 * time.Millisecond
	for _, late := range []bool{false, true} {
		c := delayCommand{By: by}
		c.late.Store(late)
		read, write := io.Pipe()
		began := time.Now()
		go func() {
			for i := range 100 {
				fmt.Fprintf(write, "%d\n", i)
			}
			write.Close()
		}()
		var got, want bytes.Buffer
		c.copy(&got, read)
		for i := range 100 {
			fmt.Fprintf(&want, "%d\n", i)
		}
		if got.String() != want.String() {
			t.Errorf("got %q", &got)
		}
		if took := time.Since(began); late && took < by {
			t.Errorf("it took %v", took)
		}
	}
}

// TestLeash checks that the drill ends if the program that started it does.
func TestLeash(t *testing.T) {
	t.Parallel()
	read, write := io.Pipe()
	ctx, cancel := leashed(t.Context(), read)
	defer cancel()
	if ctx.Err() != nil {
		t.Fatal("it ended too early")
	}
	write.Close()
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error(ctx.Err())
	}
}

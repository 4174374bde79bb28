package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/testing/toolchain"
)

// TestMain runs the test binary as the program that bench starts, with a command.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

// output runs bench and returns what it prints.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: &out, Err: os.Stderr}); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, &out)
	}
	return out.String()
}

// expectLines checks how often each expression matches.
func expectLines(t *testing.T, text string, lines map[string]int) {
	t.Helper()
	for line, want := range lines {
		if got := len(regexp.MustCompile("(?m)"+line).FindAllString(text, -1)); got != want {
			t.Errorf("%d lines match %q, want %d:\n%s", got, line, want, text)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	profiles := t.TempDir()
	text := output(t, "compare", "--clients", "1,2", "--requests", "40", "--rounds", "1", "--profile-dir", profiles)
	lines := map[string]int{"^[12] clients, keep-alive$": 2, "^[12] clients, one connection a request$": 2}
	for _, v := range variants {
		lines[`^ *`+v.name+` +[1-9]\d*( +\d+\.\d\d){2}( +[\d.]+(µs|ms|s)){5} *$`] = 4
	}
	expectLines(t, text, lines)
	files, err := os.ReadDir(profiles)
	if err != nil || len(files) != 4*len(variants) {
		t.Errorf("there are %d profiles, %v; want one for each variant and load, %d", len(files), err, 4*len(variants))
	}
}

func TestRival(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "git")
	args := []string{"rival", "--clients", "2", "--requests", "40", "--rounds", "2", "--endpoints", "2"}
	lines := map[string]int{"^2 clients, keep-alive$": 1, "^2 clients, one connection a request$": 1}
	const figures = ` +[1-9]\d*( +\d+\.\d\d){2}( +[\d.]+(µs|ms|s)){5} +[1-9]\d* MiB *$`
	for _, name := range []string{"no database", "OSS's sample, tuned", "Upcall", "with roll-ups and 2 endpoints"} {
		lines["^ *"+name+figures] = 2
	}
	expectLines(t, output(t, append(args, "--rounds", "1")...), lines)
	lines = map[string]int{"^ *no database HEAD" + figures: 2, "^ *Upcall HEAD" + figures: 2, "^ *Upcall" + figures: 2}
	expectLines(t, output(t, append(args, "--before", "HEAD")...), lines)
}

// TestVersus compares the last commit with the code under test, and exceeds a limit, which is an error.
func TestVersus(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "git")
	var text bytes.Buffer
	args := []string{"versus", "--before", "HEAD", "--clients", "2", "--requests", "400", "--rounds", "2", "--limit", "0.001"}
	if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: &text, Err: os.Stderr}); !errors.Is(err, errSlower) {
		t.Errorf("error %v, want %v", err, errSlower)
	}
	expectLines(t, text.String(), map[string]int{
		`^ *[12]( +[\d.]+(µs|ms|s)){6} +\d+\.\d{3} +\d+\.\d{3} *$`:                   2,
		`^median of the ratios: \d+\.\d{3} of the CPU time, \d+\.\d{3} of the rate$`: 1,
	})
	fails(t, nil, "versus", "--before", "HEAD", "--clients", "2", "--requests", "100", "--rounds", "1")
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	for _, more := range [][]string{nil, {"--tokens-off"}} {
		text := output(t, append([]string{"growth", "--rows", "0,2000", "--clients", "2", "--requests", "40", "--rounds", "2"}, more...)...)
		expectLines(t, text, map[string]int{`^ *(0|2000) +[1-9]\d* +\d+\.\d\d( +[\d.]+(µs|ms|s)){4} *$`: 2})
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	text := output(t, "size", "--callbacks", "1000", "--per-day", "100,3000000", "--months", "3")
	expectLines(t, text, map[string]int{
		`^ *(event|id|ledger, if it is on|roll-ups, each object new)( +[1-9]\d*){2} *$`: 4,
		`^write-ahead log +[1-9]\d{2,4} bytes$`:                                         1,
		`^receiver, peak +[1-9]\d* MiB$`:                                                1,
		`^ *(100 +0\.0|3000000 +34\.7)( +[1-9][\d.]* [kMGT]B){4} *$`:                    2,
	})
	for _, bad := range []string{"--callbacks=999", "--months=0", "--per-day=0", "--per-day=5,-1"} {
		fails(t, cli.ErrUsage, "size", bad)
	}
}

func TestBytesOf(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{0: "0.0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 9_951: "10 kB",
		2.5e9: "2.5 GB", 3.21e15: "3210 TB"} {
		if got := bytesOf(n); got != want {
			t.Errorf("%v bytes are %q, want %q", n, got, want)
		}
	}
}

func TestSoak(t *testing.T) {
	t.Parallel()
	text := output(t, "soak", "--for", "1s", "--clients", "4", "--requests", "100")
	const held = `[1-9]\d*\.\d MiB resident`
	expectLines(t, text, map[string]int{
		`^idle: ` + held + `, \d+ goroutines$`:                               1,
		`^after the first 100 callbacks: ` + held + `, \d+ goroutines$`:      1,
		`^peak: ` + held + `$`:                                               1,
		`^after [1-9]\d*00 callbacks in \d+s: ` + held + `, \d+ goroutines$`: 1,
		`^idle again: ` + held + `, \d+ goroutines$`:                         1,
	})
}

// fails runs bench and checks that it fails with a sentinel.
func fails(t *testing.T, want error, args ...string) {
	t.Helper()
	if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: io.Discard, Err: os.Stderr}); !errors.Is(err, want) {
		t.Errorf("%v: error %v, want %v", args, err, want)
	}
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	args := []string{"deliver", "--behind", "3000", "--intake", "50", "--clients", "4", "--rounds", "2", "--round", "500ms"}
	text := output(t, append(args, "--at-least", "0.1", "--taken", "0.1")...)
	expectLines(t, text, map[string]int{
		`^ *(1|2|all)( +\d+){2}( +\d+\.\d\d){4} *$`:                                                 3,
		`^\d+ deliveries/s, \d+ in the slowest round, all signed; \d+ callbacks/s$`:                 1,
		`^PostgreSQL .* 50 callbacks/s from 4 .* one endpoint with 3000 events behind; .* machine$`: 1,
	})
	fails(t, errRate, append(args, "--at-least", "1e9", "--taken", "0.1")...)
	fails(t, errRate, append(args, "--at-least", "0.1", "--taken", "1e9")...)
}

func TestIsolate(t *testing.T) {
	t.Parallel()
	args := []string{"isolate", "--endpoints", "4", "--rate", "40", "--clients", "2", "--behind", "500", "--rounds", "1", "--phase", "1s"}
	lenient := append(args, "--ratio", "1e9", "--median", "1m", "--p99", "1m")
	expectLines(t, output(t, lenient...), map[string]int{
		`^ *(1|all)( +-?\d+\.\dms){8} +\d+\.\d{3} *$`:                                                                   2,
		`^median of the ratios: \d+\.\d{3}; the bad endpoint had 8 requests, at most 8 at once, and 0 rows of retries$`: 1,
	})
	fails(t, errNotIsolated, append(lenient, "--ratio", "0.000001")...)
	fails(t, errNotIsolated, append(lenient, "--p99", "1ns")...)
}

func TestStream(t *testing.T) {
	t.Parallel()
	text := output(t, "stream", "--clients", "2", "--requests", "40", "--rounds", "1")
	const figures = ` +[1-9]\d*( +[\d.]+(µs|ms|s)){7} *$`
	expectLines(t, text, map[string]int{"^ *PostgreSQL" + figures: 1, "^ *PostgreSQL with a synchronous standby" + figures: 1,
		"^ *stream in front of PostgreSQL" + figures: 1, "^ *stream, PostgreSQL away" + figures: 1})
}

func TestLog(t *testing.T) {
	t.Parallel()
	args := []string{"log", "--clients", "2", "--requests", "200", "--rounds", "2", "--endpoints", "3"}
	text := output(t, append(args, "--most-cpu", "1e9", "--least-rate", "0", "--most-p99", "1e9")...)
	expectLines(t, text, map[string]int{
		`^ *[12]( +[\d.]+(µs|ms|s)){6}( +\d+\.\d{3}){2} *$`:                                                       4,
		`^ *[12]( +\d+( +[\d.]+(µs|ms|s)){2}){2} +\d+\.\d{3} +-?[\d.]+(µs|ms|s) *$`:                               2,
		`^median of the ratios: \d+\.\d{3} of the CPU time, \d+\.\d{3} of the rate$`:                              1,
		`^median of the ratios: \d+\.\d{3} of the rate; an event costs the reader -?[\d.]+(µs|ms|s) of CPU time$`: 1,
		`^median of the ratios: \d+\.\d{3} of the 99th percentile of turns, \d+\.\d{3} of that of rounds$`:        1,
	})
	args = append(args, "--requests", "100", "--rounds", "1")
	fails(t, errCost, append(args, "--parts", "index", "--most-cpu", "0.001")...)
	fails(t, errCost, append(args, "--parts", "finding", "--most-cpu", "0.001")...)
	fails(t, errCost, append(args, "--parts", "readers", "--least-rate", "1e9")...)
}

func TestAnalystData(t *testing.T) {
	t.Parallel()
	database := dbtest.Empty(t)
	text := output(t, "analyst-data", "--database-url", database, "--rows", "300", "--until", "2026-11-26T16:00:00Z")
	expectLines(t, text, map[string]int{
		`^filled: 300 events of the year until 2026-11-26T16:00:00Z, .* \d+ a second, in [\d.ms]+$`: 1,
		`^counted by the consumer of the log: \d+ a second, in [\d.ms]+$`:                           1,
	})
	args := []string{"queries", "--page", "../../docs/queries.md", "--runs", "1", "--database-url", database}
	expectLines(t, output(t, append(args, "--lenient")...), map[string]int{
		`^PostgreSQL \d.*, about \d+ events, shared_buffers .*, jit o(n|ff), as upcall_analyst$`: 1,
		`^ *\d+( +[\d.]+ms){2} +1s +\d+  .*$`:                                                    22,
		`^ *\d+( +[\d.]+ms){2} +50ms +\d+  .*$`:                                                  3,
	})
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("#### 1. Late?\n<!-- within 1ns -->\n```sql\nSELECT 1;\n```\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, errSlow, "queries", "--page", page, "--database-url", database)
}

func TestRollup(t *testing.T) {
	t.Parallel()
	args := []string{"rollup", "--clients", "2", "--requests", "100", "--rounds", "2", "--backlog", "1000", "--for", "1s",
		"--intake", "50", "--rests", "2"}
	lenient := append(args, "--least-rate", "0", "--most-p99", "1e9", "--most-lag", "1m", "--most-rest", "1m", "--least-rows", "0",
		"--least-intake", "0")
	expectLines(t, output(t, lenient...), map[string]int{
		`^ *[12]( +\d+( +[\d.]+(µs|ms|s)){2}){2} +\d+\.\d{3} +-?[\d.]+(µs|ms|s) *$`:                                         2,
		`^ *[12]( +[\d.]+(µs|ms|s)){6}( +\d+\.\d{3}){2} *$`:                                                                 2,
		`^median of the ratios: \d+\.\d{3} of the 99th percentile of turns, \d+\.\d{3} of that of rounds$`:                  1,
		`^at \d+ callbacks/s for 1s, the oldest event that was not counted was, in \d+ samples, at most [\d.]+m?s old; .*$`: 1,
		`^at rest, 2 callbacks one by one were counted within [\d.]+m?s of their answers; median [\d.]+m?s$`:                1,
		`^ *(100|1000) +\d+( +[\d.]+(µs|ms)){2} *$`:                                                                         2,
	})
	lenient = append(lenient, "--rounds", "1")
	fails(t, errCost, append(lenient, "--parts", "backlog", "--least-rows", "1e9")...)
	fails(t, errCost, append(lenient, "--parts", "lag", "--most-lag", "1ns")...)
	fails(t, errCost, append(lenient, "--parts", "latency", "--at", "200", "--most-p99", "0.000001")...)
}

// TestTailRatio: a moment in which the machine stood still meets one turn, and decides nothing.
func TestTailRatio(t *testing.T) {
	t.Parallel()
	without := result{tails: []time.Duration{10, 10, 900, 10, 10}}
	with := result{tails: []time.Duration{11, 700, 12, 11, 10}}
	if got := tailRatio(without, with); got != 1.1 {
		t.Errorf("got %v, want 1.1", got)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--clients", "0"}, {"--clients", "16", "--requests", "100"}, {"--clients", "1", "--requests", "0"}, {"--rounds", "0"},
		{"growth", "--clients", "0"}, {"growth", "--rounds", "0"}, {"growth", "--requests", "1"},
		{"versus"}, {"versus", "--before", "HEAD", "--rounds", "0"},
		{"rival", "--requests", "10"}, {"rival", "--rounds", "0"}, {"rival", "--endpoints", "0"},
		{"deliver", "--rounds", "0"}, {"deliver", "--intake", "0"}, {"deliver", "--behind", "0"},
		{"isolate", "--endpoints", "1"}, {"isolate", "--rate", "0"}, {"isolate", "--phase", "0s"},
		{"log", "--requests", "10"}, {"log", "--rounds", "0"}, {"log", "--parts", "nothing"},
		{"analyst-data", "--database-url", ""}, {"analyst-data", "--database-url", "postgres://h/d", "--rows", "0"},
		{"analyst-data", "--database-url", "postgres://h/d", "--until", "now"},
		{"rollup", "--backlog", "10"}, {"rollup", "--rounds", "0"}, {"rollup", "--for", "0s"}, {"rollup", "--parts", "nothing"},
		{"soak", "--clients", "0"}, {"soak", "--for", "0s"}, {"soak", "--requests", "1"},
		{"queries", "--runs", "0"}, {"queries", "--page", "main.go"}, {"queries", "--page", "none"},
		{"queries", "--page", "../../docs/queries.md", "--database-url", "none"},
		{"serve", "--variant", "none", "--key-url", "http://127.0.0.1/"}, {"--nope"}, {"extra"},
	} {
		if err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: io.Discard, Err: io.Discard}); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}
}

func TestVersusUnknownCommit(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "git")
	args := []string{"versus", "--before", "no-such-commit", "--rounds", "1"}
	err := run(t.Context(), args, cli.Environ(), cli.Stdio{Out: io.Discard, Err: io.Discard})
	if err == nil || errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), "no-such-commit") {
		t.Errorf("an unknown commit: %v", err)
	}
}

// TestRatio checks that a machine that gets slower from round to round does not change the
// ratio.
func TestRatio(t *testing.T) {
	t.Parallel()
	rates := func(perSecond ...int) (all []result) {
		for _, n := range perSecond {
			all = append(all, result{latencies: make([]time.Duration, n), took: time.Second})
		}
		return all
	}
	if got := ratio(rates(600, 330, 100), rates(1000, 500, 200)); got != 0.6 {
		t.Errorf("got %v, want the median of 0.6, 0.66 and 0.5", got)
	}
}

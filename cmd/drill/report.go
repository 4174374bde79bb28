package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"upcall/internal/loadgen"
)

// A report is what a drill saw.
type report struct {
	config
	began     time.Time
	stillness loadgen.Stillness
	outcomes  []outcome

	reinitialized int // standbys
}

// An outcome is what a client saw of one fault, from when everything was whole until it was again.
type outcome struct {
	kind     kind
	took     time.Duration
	drained  time.Duration // until no callback waited in a fallback, once everything was whole
	moved    bool          // another node is the primary
	seen     loadgen.Tally
	recorded loadgen.Comparison // of all callbacks so far
}

func (o outcome) String() string {
	moved := ""
	if o.moved {
		moved = ", new primary"
	}
	return fmt.Sprintf("%s: %.0f s%s, drained in %.1f s, %d callbacks, %d unheard, %d requests 503, %d unanswered, slowest %v, gap %v, lost %d, doubled %d",
		o.kind.name, o.took.Seconds(), moved, o.drained.Seconds(), o.seen.Callbacks, o.seen.Unheard, o.seen.Unavailable, o.seen.Unanswered,
		o.seen.Slowest.Round(time.Millisecond), o.seen.Gap.Round(time.Millisecond), o.recorded.Lost, o.recorded.Doubled)
}

// last is the comparison at the end.
func (r *report) last() loadgen.Comparison {
	if len(r.outcomes) == 0 {
		return loadgen.Comparison{}
	}
	return r.outcomes[len(r.outcomes)-1].recorded
}

func (r *report) lost() int { return r.last().Lost }

// total is what was seen of all faults together.
func (r *report) total() (t loadgen.Tally) {
	for _, o := range r.outcomes {
		t = t.Plus(o.seen)
	}
	return t
}

// late returns how many requests a receiver left unanswered that no fault disturbed.
func (r *report) late() (n int) {
	for _, o := range r.outcomes {
		if !o.kind.receiver {
			n += o.seen.Unanswered
		}
	}
	return n
}

// unheard returns how many callbacks no URL answered 200 though one could have.
func (r *report) unheard() (n int) {
	for _, o := range r.outcomes {
		if !o.kind.away {
			n += o.seen.Unheard
		}
	}
	return n
}

// good reports whether every promise was kept and every fault came. Without a second URL or a
// fallback, callbacks may stay unheard.
func (r *report) good() bool {
	t := r.total()
	return len(r.outcomes) == r.Faults && t.Acknowledged > 0 && r.last().Lost == 0 && r.last().Doubled == 0 && len(t.Wrong) == 0 &&
		t.Slowest <= r.Slowest && r.late() == 0 && (r.unheard() == 0 || r.OneURL || r.Engine == engineNone)
}

func (r *report) print(out io.Writer) {
	t := r.total()
	fmt.Fprintf(out, "%s, %d CPUs; three nodes, two receivers, %s", r.began.UTC().Format(time.DateOnly), runtime.NumCPU(), r.backing())
	fmt.Fprintf(out, "; %s; seed %d, %d faults in %.0f min\n", r.urls(), r.Seed, len(r.outcomes), time.Since(r.began).Minutes())
	if r.Without != "nothing" {
		fmt.Fprintf(out, "WITHOUT %s\n", map[string]string{"barrier": "the barrier", "synchronous": "synchronous mode",
			"strict": "strict synchronous mode"}[r.Without])
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "fault\tseconds\tdrained in\tnew primary\tcallbacks\tunheard\trequests 503\twithout answer\tslowest\tlongest gap\tlost so far")
	for _, o := range r.outcomes {
		fmt.Fprintf(table, "%s\t%.0f\t%.1f\t%s\t%d\t%d\t%d\t%d\t%v\t%v\t%d\n", o.kind.name, o.took.Seconds(), o.drained.Seconds(), map[bool]string{true: "yes"}[o.moved],
			o.seen.Callbacks, o.seen.Unheard, o.seen.Unavailable, o.seen.Unanswered, o.seen.Slowest.Round(time.Millisecond),
			o.seen.Gap.Round(time.Millisecond), o.recorded.Lost)
	}
	table.Flush()
	table = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		what string
		n    any
	}{
		{"callbacks", t.Callbacks},
		{"requests sent, repeats and next URLs included", t.Sent},
		{"requests answered 200", t.Accepted},
		{"of those, by what keeps the event", durable(t.Durable)},
		{"requests answered 503", share(t.Unavailable, t.Sent)},
		{"requests without an answer", t.Unanswered},
		{"of those, to a receiver that no fault disturbed", r.late()},
		{"callbacks acknowledged", t.Acknowledged},
		{"callbacks that no URL answered 200", share(t.Unheard, t.Callbacks)},
		{"of those, while a fallback or PostgreSQL was there", r.unheard()},
		{"callbacks recorded", r.last().Recorded},
		{"acknowledged and lost", r.last().Lost},
		{"recorded twice", r.last().Doubled},
		{"refused wrongly", len(t.Wrong)},
		{"standbys copied anew by hand", r.reinitialized},
		{"times that the machine stood still", r.stillness.Count()},
		{"slowest answer otherwise", t.Slowest.Round(time.Millisecond)},
		{"longest time without an acknowledgement", t.Gap.Round(time.Millisecond)},
	} {
		fmt.Fprintf(table, "%s\t%v\n", row.what, row.n)
	}
	table.Flush()
	for _, answer := range t.Wrong[:min(len(t.Wrong), 5)] {
		fmt.Fprintln(out, "wrong answer: "+answer)
	}
}

func (r *report) backing() string {
	switch r.Engine {
	case engineNone:
		return "no fallback"
	case engineFallback:
		return "three NATS servers as their fallback"
	case engineFront:
		return "three NATS servers in front of PostgreSQL"
	}
	return "a spool each"
}

func (r *report) urls() string {
	if r.OneURL {
		return "one callback URL"
	}
	return "two callback URLs"
}

// share formats a number and what share of a whole it is.
func share(n, whole int) string {
	return fmt.Sprintf("%d (%.2f %%)", n, 100*float64(n)/float64(max(whole, 1)))
}

func durable(counts map[string]int) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(list, ", ")
}

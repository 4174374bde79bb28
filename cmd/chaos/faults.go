package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"upcall/internal/embeddedpg"
)

// faults come one after the other, evenly over the run, in random order.
type faults struct {
	command
	world  *world
	load   *load
	wanted map[string]int // how many of each
	order  []string
	random *rand.Rand
	done   map[string]int
}

func newFaults(w *world, l *load, c command) *faults {
	f := &faults{world: w, load: l, random: rand.New(rand.NewPCG(c.Seed, 0)), done: make(map[string]int), command: c,
		wanted: map[string]int{"hold": c.Holds, "kill": c.Kills, "outage": c.Outages, "cut": c.Cuts, "stall": c.Stalls,
			"delay": c.Delays, "fill": c.Fills, "restart": c.Restarts, "failover": c.Failovers}}
	for _, name := range slices.Sorted(maps.Keys(f.wanted)) {
		if !f.excused(name) {
			f.order = append(f.order, slices.Repeat([]string{name}, f.wanted[name])...)
		}
	}
	f.random.Shuffle(len(f.order), func(i, j int) { f.order[i], f.order[j] = f.order[j], f.order[i] })
	f.order = f.withPauses(c.Pauses)
	return f
}

// withPauses returns the faults with as many times, evenly among them, in which an application
// is paused.
func (f *faults) withPauses(n int) (order []string) {
	if n > 0 {
		f.wanted["pause"], f.wanted["resume"] = n, n
	}
	next := 1
	for i, name := range append(f.order, "") {
		for ; next <= 2*n && i >= (next*len(f.order)+n)/(2*n+1); next++ {
			order = append(order, []string{"resume", "pause"}[next%2])
		}
		order = append(order, name)
	}
	return order[:len(order)-1]
}

// excused reports whether this run cannot have a fault.
func (f *faults) excused(name string) bool { return name == "fill" && f.world.mountErr != nil }

// missed returns how many of the wanted faults did not come.
func (f *faults) missed() int {
	n := len(f.order)
	for _, done := range f.done {
		n -= done
	}
	return n
}

// inject injects the faults in turn and returns when all are over.
func (f *faults) inject(ctx context.Context) error {
	share, begun := f.load.total/(len(f.order)+1), 0
	for i, name := range f.order {
		// One that took long does not make the next come at once.
		if !f.load.reach(ctx, max((i+1)*share, begun+share/2)) {
			break
		}
		victim := f.victim(ctx, name)
		fmt.Fprintf(f.world.progress, "%d callbacks: %s\n", f.load.Begun(), name)
		i := interruption{name: name, begin: time.Now()}
		if err := f.one(ctx, name, victim); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch i.end = time.Now(); name {
		case "kill": // is noted with more
		case "restart", "hold", "pause", "resume": // nothing is told twice because of them
		case "failover":
			i.timeline = f.done[name] + 2
			fallthrough
		default:
			f.world.telling.interrupted(i)
		}
		f.done[name]++
		begun = f.load.Begun()
	}
	return ctx.Err()
}

// victim chooses a receiver. If there is time, a kill waits for a delivery and hits the receiver
// that made it.
func (f *faults) victim(ctx context.Context, name string) *receiver {
	victim := f.world.receivers[f.random.IntN(len(f.world.receivers))]
	if name != "kill" {
		return victim
	}
	if f.Late > 0 && f.random.IntN(4) > 0 {
		if pid, err := f.world.counts(ctx); err == nil {
			victim = f.world.withPID(pid, victim)
		}
	}
	if f.Await == 0 {
		return victim
	}
	t := f.world.telling
	select {
	case <-t.flaky.delivery():
	case <-time.After(f.Await):
	case <-ctx.Done():
	}
	holders, err := t.holders(ctx)
	if err != nil {
		return victim
	}
	return f.world.withPID(holders[t.flaky], victim)
}

// withPID returns the receiver that is a process, or else the other.
func (w *world) withPID(pid int, other *receiver) *receiver {
	for _, r := range w.receivers {
		if r.cmd.Process.Pid == pid {
			return r
		}
	}
	return other
}

// hold keeps a fault up for a share of the load, but no longer than limit.
func (f *faults) hold(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f.load.reach(ctx, f.load.Begun()+max(f.load.total/(4*(len(f.order)+1)), 1))
}

func (f *faults) one(ctx context.Context, name string, victim *receiver) error {
	switch name {
	case "kill":
		return f.world.telling.kill(ctx, victim, func() error { return f.load.leave(ctx, victim, f.Late, f.random) })
	case "restart":
		return errors.Join(victim.end(syscall.SIGTERM), victim.start(ctx))
	case "outage":
		if err := f.world.postgres.Kill(); err != nil {
			return err
		}
		f.hold(ctx, 5*time.Second)
		return f.world.restartPostgres(ctx)
	case "cut":
		f.world.proxy.Stop()
		f.hold(ctx, 2*time.Second)
		return listenAgain(ctx, f.world.proxy.Start)
	case "stall":
		return f.toxic(ctx, `{"name":"stall","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`)
	case "delay":
		return f.toxic(ctx, `{"name":"delay","type":"latency","stream":"downstream","attributes":{"latency":700,"jitter":300}}`)
	case "fill":
		return f.fill(ctx, victim)
	case "failover":
		return f.failOver(ctx)
	case "hold":
		return f.world.telling.hold(ctx, f.HoldFor)
	case "pause":
		return f.world.telling.pause(ctx, f.world.telling.napper)
	case "resume":
		return f.world.telling.resume(ctx, f.world.telling.napper)
	}
	return fmt.Errorf("unknown fault %q", name)
}

// toxic disturbs the connections between the receivers and PostgreSQL for a while.
func (f *faults) toxic(ctx context.Context, document string) error {
	toxic, err := f.world.proxy.Toxics.AddToxicJson(strings.NewReader(document))
	if err != nil {
		return err
	}
	f.hold(ctx, 5*time.Second)
	return f.world.proxy.Toxics.RemoveToxic(ctx, toxic.Name)
}

// fill fills a spool's disk while PostgreSQL is down, so that the receiver can keep
// nothing.
func (f *faults) fill(ctx context.Context, victim *receiver) error {
	if err := f.world.postgres.Kill(); err != nil {
		return err
	}
	ballast, err := os.Create(filepath.Join(victim.disk, "ballast"))
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for {
		if _, err := ballast.Write(block); err != nil {
			break // the disk is full, as it should be
		}
	}
	f.hold(ctx, 5*time.Second)
	return errors.Join(ballast.Close(), os.Remove(ballast.Name()), f.world.restartPostgres(ctx))
}

// failOver gives PostgreSQL a synchronous standby, stalls it, kills the primary, and promotes the
// standby, which takes its place.
func (f *faults) failOver(ctx context.Context) error {
	w := f.world
	link, err := w.newProxy("link", w.postgres.Port())
	if err != nil {
		return err
	}
	defer link.Stop()
	primaryURL, err := throughProxy(w.postgres.URL(), link.Listen)
	if err != nil {
		return err
	}
	home := fmt.Sprintf("%s-%d", filepath.Join(w.dir, "postgres"), f.done["failover"]+1)
	standby, err := embeddedpg.Start(ctx, embeddedpg.Config{DataDir: home, StandbyOf: primaryURL})
	if err != nil {
		return err
	}
	primary, left := w.postgres, w.home
	w.standby = standby
	if err := primary.Synchronous(ctx); err != nil {
		return err
	}
	f.hold(ctx, 2*time.Second)
	const stall = `{"name":"stall","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`
	_, err = link.Toxics.AddToxicJson(strings.NewReader(stall))
	if err != nil {
		return err
	}
	f.hold(ctx, 5*time.Second)
	if err := w.postgres.Kill(); err != nil {
		return err
	}
	link.Stop()
	if err := standby.Promote(ctx); err != nil {
		return err
	}
	w.postgres, w.home, w.standby = standby, home, nil
	w.proxy.Stop()
	w.proxy.Upstream = fmt.Sprintf("127.0.0.1:%d", standby.Port())
	return errors.Join(listenAgain(ctx, w.proxy.Start), os.RemoveAll(left))
}

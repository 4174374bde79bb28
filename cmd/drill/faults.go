package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A kind is a fault that a drill can make. The world is whole when it begins, and is repaired when it
// ends.
type kind struct {
	name string
	// receiver says that it disturbs a receiver itself, so that requests may stay without an answer.
	receiver bool
	// away says that neither PostgreSQL nor a fallback is there for a while, so that nothing can be
	// acknowledged.
	away bool
	make func(ctx context.Context, f *fault) error
}

// A fault is one of a kind, as it happens.
type fault struct {
	*world
	kind   kind
	random *rand.Rand
	roles  roles // when it began
}

// kinds returns the faults that there are.
func (c config) kinds() []kind {
	all := []kind{
		{name: "postgres killed", make: killPostgres},
		{name: "patroni killed", make: killPatroni},
		{name: "etcd killed", make: killEtcd},
		{name: "receiver killed", receiver: true, make: killReceiver},
		{name: "primary stopped", make: stopPrimary},
		{name: "primary cut off", make: cutPrimary},
		{name: "primary cut off with a receiver", receiver: true, make: cutPrimaryAndReceiver},
		{name: "standby cut off", make: cutStandby},
		{name: "walreceiver stopped", make: stopWalreceiver},
		{name: "standbys late and primary lost", make: delayStandbys},
		{name: "standby loses packets", make: losePackets},
		{name: "switchover", make: switchOver},
		{name: "all nodes restarted", away: c.streams(), make: restartAll},
		{name: "standbys cut off and primary's disk lost", make: loseDisk},
	}
	if c.streams() {
		all = append(all, streamKinds()...)
	}
	return all
}

// choose returns n kinds in random order, of those with the given names if there are any. No kind
// comes a second time before each came once.
func choose(all []kind, names []string, n int, random *rand.Rand) ([]kind, error) {
	if len(names) > 0 {
		var named []kind
		for _, name := range names {
			i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
			if i < 0 {
				return nil, fmt.Errorf("there is no fault %q", name)
			}
			named = append(named, all[i])
		}
		all = named
	}
	var chosen []kind
	for len(chosen) < n {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		chosen = append(chosen, all[:min(len(all), n-len(chosen))]...)
	}
	return chosen, nil
}

// hold lets a fault last.
func (f *fault) hold(ctx context.Context, d time.Duration) error {
	return sleep(ctx, time.Duration(float64(d)*f.Hold))
}

// one returns one of the receivers.
func (f *fault) one() *receiver { return f.receivers[f.random.IntN(len(f.receivers))] }

func killPostgres(ctx context.Context, f *fault) error {
	if err := f.roles.primary.crash(); err != nil {
		return err
	}
	return f.hold(ctx, 15*time.Second)
}

// killPatroni leaves PostgreSQL alone for longer than the leader's key lasts: it is a primary that
// nobody looks after, beside the next one.
func killPatroni(ctx context.Context, f *fault) error {
	f.roles.primary.end(f.roles.primary.patroni, syscall.SIGKILL)
	return f.hold(ctx, 35*time.Second)
}

// killEtcd kills two of three, so that there is no majority, beginning with the primary's.
func killEtcd(ctx context.Context, f *fault) error {
	for _, n := range []*node{f.roles.primary, f.roles.standbys[0]} {
		n.end(n.etcd, syscall.SIGKILL)
	}
	return f.hold(ctx, 30*time.Second)
}

func killReceiver(ctx context.Context, f *fault) error {
	f.one().kill()
	return f.hold(ctx, 5*time.Second)
}

// stopPrimary stops everything on the primary's machine, which then goes on as if nothing had been.
func stopPrimary(ctx context.Context, f *fault) error {
	f.roles.primary.signal(syscall.SIGSTOP, "")
	err := f.hold(ctx, time.Minute)
	f.roles.primary.signal(syscall.SIGCONT, "")
	return err
}

func cutPrimary(ctx context.Context, f *fault) error {
	if err := f.roles.primary.cut(ctx); err != nil {
		return err
	}
	return f.hold(ctx, 45*time.Second)
}

func cutPrimaryAndReceiver(ctx context.Context, f *fault) error {
	r, n := f.one(), f.roles.primary
	if err := errors.Join(n.cut(ctx, r.machine), r.cut(ctx, n.machine)); err != nil {
		return err
	}
	return f.hold(ctx, 45*time.Second)
}

func cutStandby(ctx context.Context, f *fault) error {
	if err := f.roles.standbys[0].cut(ctx); err != nil {
		return err
	}
	return f.hold(ctx, 30*time.Second)
}

// stopWalreceiver stops it for longer than a commit may take.
func stopWalreceiver(ctx context.Context, f *fault) error {
	n := f.roles.standbys[0]
	if n.signal(syscall.SIGSTOP, walreceiver) == 0 {
		return fmt.Errorf("find the walreceiver of %s", n.name)
	}
	err := f.hold(ctx, 30*time.Second)
	n.signal(syscall.SIGCONT, walreceiver)
	return err
}

// delayStandbys makes what the primary sends arrive so late that commits take longer than they may,
// and then the primary loses its power, with what was on its way.
func delayStandbys(ctx context.Context, f *fault) error {
	by := time.Duration(float64(20*time.Second) * f.Hold)
	for _, n := range f.roles.standbys {
		proxy, err := n.detour(ctx, f.self, f.roles.primary, by)
		if err != nil {
			return err
		}
		defer n.end(proxy, syscall.SIGKILL)
	}
	if _, err := f.cluster.await(ctx, settle); err != nil {
		return err
	}
	for _, n := range f.roles.standbys {
		if n.signal(syscall.SIGUSR1, f.self+" delay") == 0 {
			return fmt.Errorf("find the proxy of %s", n.name)
		}
	}
	if err := f.hold(ctx, 30*time.Second); err != nil {
		return err
	}
	for _, n := range f.roles.standbys {
		n.signal(syscall.SIGKILL, f.self+" delay")
	}
	if err := f.roles.primary.powerOff(ctx); err != nil {
		return err
	}
	return f.nextPrimary(ctx)
}

// nextPrimary waits until another node is the primary. If Patroni promotes none, because too much
// would be lost or no standby is synchronous, someone promotes the one that has most by hand.
func (f *fault) nextPrimary(ctx context.Context) error {
	const patience = time.Minute
	for began := time.Now(); f.cluster.leader(ctx, f.roles.primary) == nil; {
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
		switch waited := time.Since(began); {
		case waited > settle:
			return errors.New("no other node became the primary")
		case waited > patience:
			if err := f.promoteBest(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// promoteBest promotes the standby that has most of the log.
func (f *fault) promoteBest(ctx context.Context) error {
	var best *node
	most := int64(-1)
	for _, n := range f.roles.standbys {
		if position, err := n.received(ctx); err == nil && position > most {
			best, most = n, position
		}
	}
	if best == nil {
		return errors.New("no standby can be promoted")
	}
	err := best.promote(ctx)
	if err != nil && strings.Contains(err.Error(), "not in standby mode") {
		return nil // Patroni was quicker
	}
	return err
}

func losePackets(ctx context.Context, f *fault) error {
	n := f.roles.standbys[0]
	for _, way := range []string{"INPUT -i", "OUTPUT -o"} {
		if err := n.filter(ctx, "-A "+way+" eth0 -m statistic --mode random --probability 0.3 -j DROP"); err != nil {
			return err
		}
	}
	return f.hold(ctx, 40*time.Second)
}

func switchOver(ctx context.Context, f *fault) error {
	document := fmt.Sprintf(`{"leader":%q,"candidate":%q}`, f.roles.primary.name, f.roles.standbys[0].name)
	if err := post(ctx, "http://"+f.roles.primary.addr+":8008/switchover", document); err != nil {
		return err
	}
	return f.hold(ctx, 10*time.Second)
}

func restartAll(ctx context.Context, f *fault) error {
	for _, n := range f.cluster.nodes {
		if err := n.powerOff(ctx); err != nil {
			return err
		}
	}
	return f.hold(ctx, 5*time.Second)
}

// loseDisk cuts both standbys off, so that nothing the primary commits is anywhere else, and then
// loses the primary with its data. Someone promotes the standby that has more by hand.
func loseDisk(ctx context.Context, f *fault) error {
	for _, n := range f.roles.standbys {
		// The standbys' etcd stay in reach: without a majority the primary would give up.
		for _, side := range []string{"INPUT -s %s -p tcp --sport 5432", "OUTPUT -d %s -p tcp --dport 5432"} {
			if err := n.filter(ctx, "-A "+fmt.Sprintf(side, f.roles.primary.addr)+" -j DROP"); err != nil {
				return err
			}
		}
	}
	if err := f.hold(ctx, 30*time.Second); err != nil {
		return err
	}
	lost := f.roles.primary
	if err := lost.powerOff(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(lost.data()); err != nil {
		return fmt.Errorf("lose disk: %w", err)
	}
	if f.cluster.leader(ctx, lost) == nil {
		if err := f.promoteBest(ctx); err != nil {
			return err
		}
	}
	return f.nextPrimary(ctx)
}

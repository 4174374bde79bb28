package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// A side is a receiver that is compared with another one beside it, which the same callbacks
// are sent to. Both keep running, with their clients, and take turns.
type side struct {
	*lab
	child   *child
	clients *fleet
}

// createDatabase makes a database on the lab's server and returns its URL.
func (l *lab) createDatabase(ctx context.Context, name string) (string, error) {
	if _, err := l.pool.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("make database: %w", err)
	}
	database, err := url.Parse(l.databaseURL)
	if err != nil {
		return "", fmt.Errorf("make database: %w", err)
	}
	database.Path = "/" + name
	return database.String(), nil
}

// newSide starts a receiver with a database of its own, which is prepared first. It has no roll-ups,
// so that they are in no comparison but their own.
func (l *lab) newSide(ctx context.Context, name string, how load, prepare func(*lab) error) (*side, error) {
	return l.newRollupSide(ctx, name, how, "", func(own *lab) error {
		if err := withoutRollups(ctx, own); err != nil || prepare == nil {
			return err
		}
		return prepare(own)
	})
}

// newRollupSide is newSide with roll-ups. It also writes a CPU profile of the receiver, unless the
// file's name is empty.
func (l *lab) newRollupSide(ctx context.Context, name string, how load, profile string, prepare func(*lab) error) (*side, error) {
	database, err := l.createDatabase(ctx, name)
	if err != nil {
		return nil, err
	}
	own := l.again()
	own.databaseURL = database
	if err = own.prepare(ctx); err == nil && prepare != nil {
		err = prepare(own)
	}
	if err != nil {
		own.closePool()
		return nil, err
	}
	return own.startSide(ctx, variantNamed(upcallName), how, profile)
}

// startSide starts a variant on the lab's database, and closes that with the side.
func (l *lab) startSide(ctx context.Context, v variant, how load, profile string) (*side, error) {
	s := &side{lab: l}
	var err error
	if s.child, err = startChild(ctx, l.program, v, l.databaseURL, l.keys.KeyURL, profile, false, l.args...); err != nil {
		s.close()
		return nil, err
	}
	s.clients = connect(s.child.addr, how)
	return s, nil
}

func (s *side) close() {
	if s.clients != nil {
		s.clients.close()
	}
	if s.child != nil {
		_ = s.child.stop() // what it recorded was counted
	}
	s.closePool()
}

// turn sends requests and then gives the receiver a rest, which is in the CPU time and not in the
// rate. It may be nil.
func (s *side) turn(ctx context.Context, requests [][]byte, rate float64, rest func(context.Context, *side) error) (result, error) {
	receiverBefore, postgresBefore, beforeErr := s.used()
	got, err := s.clients.send(requests, rate)
	if err := errors.Join(err, beforeErr); err != nil {
		return result{}, err
	}
	if rest != nil {
		if err := rest(ctx, s); err != nil {
			return result{}, err
		}
	}
	receiverAfter, postgresAfter, err := s.used()
	got.receiverCPU, got.postgresCPU = receiverAfter-receiverBefore, postgresAfter-postgresBefore
	return got, err
}

// used returns the CPU time of the receiver and of PostgreSQL.
func (s *side) used() (receiver, postgres time.Duration, err error) {
	var pids []int
	postgresErr := eachPostgres(s.postgres, func(pid int, _ time.Duration) { pids = append(pids, pid) })
	receiver, receiverErr := exactCPU(s.child.cmd.Process.Pid)
	postgres, err = exactCPU(pids...)
	return receiver, postgres, errors.Join(err, postgresErr, receiverErr)
}

// A match is two sides and how they take turns.
type match struct {
	sides    [2]*side
	requests [][]byte // of a round; the tables are emptied before each
	turns    int      // of each side in a round: ABBAAB…
	rate     float64  // of callbacks; 0 is as many as possible
	// rest is for what a receiver does after its answers; nil is no rest.
	rest func(context.Context, *side) error
	also string // tables to empty, too, as in ", a, b"
}

// warmUp sends some callbacks that are not measured.
func (m *match) warmUp(ctx context.Context) error {
	for _, s := range m.sides {
		for _, some := range [][][]byte{m.requests[:1], m.requests[1 : len(m.requests)/2]} { // the public key is fetched for the first
			if _, err := s.turn(ctx, some, 0, m.rest); err != nil {
				return fmt.Errorf("warm up: %w", err)
			}
		}
	}
	return nil
}

// round returns what each side did in a round.
func (m *match) round(ctx context.Context, number int) (all [2]result, err error) {
	for _, s := range m.sides {
		if err := s.empty(ctx, m.also); err != nil {
			return all, err
		}
	}
	per := len(m.requests) / m.turns
	for turn := range m.turns {
		for i := range m.sides {
			which := (i + turn + number) % len(m.sides)
			got, err := m.sides[which].turn(ctx, m.requests[turn*per:(turn+1)*per], m.rate, m.rest)
			if err != nil {
				return all, err
			}
			slices.Sort(got.latencies)
			got.tails = []time.Duration{quantile(got.latencies, .99)}
			all[which].add(got)
		}
	}
	for _, s := range m.sides {
		if err := s.expect(ctx, per*m.turns); err != nil {
			return all, err
		}
	}
	return all, nil
}

// add adds another run to a result, whose latencies are not sorted then.
func (r *result) add(more result) {
	r.took += more.took
	r.latencies = append(r.latencies, more.latencies...)
	r.tails = append(r.tails, more.tails...)
	r.receiverCPU += more.receiverCPU
	r.postgresCPU += more.postgresCPU
}

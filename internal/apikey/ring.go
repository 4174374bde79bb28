package apikey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// RevokedWithin is how long a revoked key may still be accepted: keys are read again
	// when they are older. Asking the database on every request would cost a query each.
	RevokedWithin = 5 * time.Second
	// newWithin is how long a new key may still be refused. It limits what someone who
	// makes up keys can cost the database: one list a second.
	newWithin = time.Second
	// listTimeout limits how long reading all keys may take.
	listTimeout = 2 * time.Second
)

// ErrInvalid says that a request has no valid key. Its text may be shown to the caller.
var ErrInvalid = errors.New("no valid API key")

// A Holder is who has a key: its hash, and what the program knows of it.
type Holder[T any] struct {
	ID   string
	Hash Hash
	Owns T
}

// A Ring holds all valid keys in memory, so that checking one rarely asks the database, and an
// unknown key costs no memory: someone who makes up keys cannot fill a cache.
type Ring[T any] struct {
	list    func(context.Context) ([]Holder[T], error)
	now     func() time.Time
	current atomic.Pointer[ringState[T]]
	reading chan struct{} // holds one token while a request reads the keys
}

type ringState[T any] struct {
	at      time.Time
	holders map[string]*Holder[T]
	err     error // why the keys could not be read
}

// NewRing returns a ring of the keys that list returns: those that are valid now.
func NewRing[T any](list func(context.Context) ([]Holder[T], error), now func() time.Time) *Ring[T] {
	r := &Ring[T]{list: list, now: now, reading: make(chan struct{}, 1)}
	r.current.Store(&ringState[T]{})
	return r
}

// Check returns the holder of the key in a request. The error wraps [ErrInvalid], with the same
// text whether the ID is unknown, the key is revoked or the secret is wrong: otherwise a stranger
// could learn which IDs exist. Or it is that of list.
func (r *Ring[T]) Check(ctx context.Context, header http.Header) (*Holder[T], error) {
	// Of two headers, a proxy might check one and this program the other.
	values := header.Values("Authorization")
	if len(values) != 1 {
		return nil, fmt.Errorf("%w: send one header Authorization: Bearer upk_…", ErrInvalid)
	}
	scheme, text, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return nil, fmt.Errorf("%w: send the header Authorization: Bearer upk_…", ErrInvalid)
	}
	id, secret, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the Authorization header does not hold one", ErrInvalid)
	}
	found, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	// An unknown ID is compared with a hash that no secret has, so that it takes as long
	// as a wrong secret.
	var hash Hash
	if found != nil {
		hash = found.Hash
	}
	if !hash.Matches(secret) || found == nil {
		return nil, fmt.Errorf("%w: this one is not", ErrInvalid)
	}
	return found, nil
}

// Valid returns the holder of a key that was checked before, with what it owns now. The error wraps
// [ErrInvalid] if the key was revoked, or another one has its ID.
func (r *Ring[T]) Valid(ctx context.Context, id string, hash Hash) (*Holder[T], error) {
	found, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if found == nil || found.Hash != hash {
		return nil, fmt.Errorf("%w: it was revoked", ErrInvalid)
	}
	return found, nil
}

// find returns the holder with that ID, or nil.
func (r *Ring[T]) find(ctx context.Context, id string) (*Holder[T], error) {
	s := r.current.Load()
	if !r.stale(s, id) {
		return s.holders[id], s.err
	}
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for API keys: %w", ctx.Err())
	}
	// Another request may have read them while this one waited.
	if s = r.current.Load(); r.stale(s, id) {
		s = r.read(ctx)
		r.current.Store(s)
	}
	return s.holders[id], s.err
}

// stale reports whether s is too old to say anything about id. A failure is kept for as long as
// an unknown ID, so that requests do not queue for the database during an outage.
func (r *Ring[T]) stale(s *ringState[T], id string) bool {
	age := r.now().Sub(s.at)
	if s.err == nil && s.holders[id] != nil {
		return age >= RevokedWithin
	}
	return age >= newWithin
}

// read reads all keys. It continues when ctx ends, because other requests wait for it.
func (r *Ring[T]) read(ctx context.Context) *ringState[T] {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listTimeout)
	defer cancel()
	began := r.now() // a change during the reading may have been missed
	all, err := r.list(ctx)
	if err != nil {
		// A failure counts from its end: it may have taken longer than it is kept.
		return &ringState[T]{at: r.now(), err: fmt.Errorf("list API keys: %w", err)}
	}
	s := &ringState[T]{at: began, holders: make(map[string]*Holder[T], len(all))}
	for i := range all {
		s.holders[all[i].ID] = &all[i]
	}
	return s
}

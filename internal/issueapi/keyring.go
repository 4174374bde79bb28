package issueapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"upcall/internal/apikey"
)

const (
	// RevokedWithin is how long a revoked key may still be accepted: keys are read again
	// when they are older. Asking the database on every request would cost a query for
	// each upload.
	RevokedWithin = 5 * time.Second
	// newWithin is how long a new key may still be refused. It limits what someone who
	// makes up keys can cost the database: one list a second.
	newWithin = time.Second
	// listTimeout limits how long reading all keys may take.
	listTimeout = 2 * time.Second
)

// A caller owns the key that came with a request.
type caller struct {
	id, policy string
	hash       apikey.Hash
	limiter    *rate.Limiter
	multiparts chan struct{} // holds a token for each multipart upload being issued for this key
}

// A keyring holds all keys in memory, so that checking one rarely asks the database, and
// an unknown key costs no memory: someone who makes up keys cannot fill a cache.
type keyring struct {
	keys    Keys
	rate    rate.Limit
	burst   int
	now     func() time.Time
	current atomic.Pointer[snapshot]
	reading chan struct{} // holds one token while a request reads the keys
}

// A snapshot holds all keys that are not revoked, by ID.
type snapshot struct {
	at      time.Time
	callers map[string]*caller // after a failure, the previous ones, only for their limiters
	err     error              // why the keys could not be read
}

func newKeyring(keys Keys, limit rate.Limit, burst int, now func() time.Time) *keyring {
	k := &keyring{keys: keys, rate: limit, burst: burst, now: now, reading: make(chan struct{}, 1)}
	k.current.Store(&snapshot{})
	return k
}

// check returns the caller whose key a request came with. The error is a problem. It is
// the same whether the ID is unknown, the key is revoked or the secret is wrong: otherwise
// a stranger could learn which IDs exist.
func (k *keyring) check(ctx context.Context, header http.Header) (*caller, error) {
	text, err := bearer(header)
	if err != nil {
		return nil, err
	}
	id, secret, err := apikey.Parse(text)
	if err != nil {
		return nil, problemOf(kindUnauthenticated, "the Authorization header does not hold an API key of this issuer")
	}
	found, err := k.find(ctx, id)
	if err != nil {
		return nil, err
	}
	// An unknown ID is compared with a hash that no secret has, so that it takes as long
	// as a wrong secret.
	var hash apikey.Hash
	if found != nil {
		hash = found.hash
	}
	if !hash.Matches(secret) || found == nil {
		return nil, problemOf(kindUnauthenticated, "the API key is not valid")
	}
	return found, nil
}

// bearer returns the key in the only Authorization header. Of two, a proxy might check one
// and this program the other.
func bearer(header http.Header) (string, error) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return "", problemOf(kindUnauthenticated, "send one header Authorization: Bearer upk_…")
	}
	scheme, text, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", problemOf(kindUnauthenticated, "send the header Authorization: Bearer upk_…")
	}
	return text, nil
}

// find returns the caller with that ID, or nil.
func (k *keyring) find(ctx context.Context, id string) (*caller, error) {
	s := k.current.Load()
	if !k.stale(s, id) {
		return s.callers[id], s.err
	}
	select {
	case k.reading <- struct{}{}:
		defer func() { <-k.reading }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for API keys: %w", ctx.Err())
	}
	// Another request may have read them while this one waited.
	if s = k.current.Load(); k.stale(s, id) {
		s = k.read(ctx, s)
		k.current.Store(s)
	}
	return s.callers[id], s.err
}

// stale reports whether s is too old to say anything about id. A failure is kept for as
// long as an unknown ID, so that requests do not queue for the database during an outage.
func (k *keyring) stale(s *snapshot, id string) bool {
	age := k.now().Sub(s.at)
	if s.err == nil && s.callers[id] != nil {
		return age >= RevokedWithin
	}
	return age >= newWithin
}

// read reads all keys. It continues when ctx ends, because other requests wait for it.
//
// A key keeps its limits from one reading to the next, even through an outage, so that its
// rate is not reset. Only keys that exist have limiters, which bounds their number.
func (k *keyring) read(ctx context.Context, last *snapshot) *snapshot {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listTimeout)
	defer cancel()
	began := k.now() // a change during the reading may have been missed
	keys, err := k.keys.List(ctx)
	if err != nil {
		// A failure counts from its end: it may have taken longer than it is kept.
		return &snapshot{at: k.now(), callers: last.callers, err: fmt.Errorf("list API keys: %w", err)}
	}
	callers := make(map[string]*caller, len(keys))
	for _, key := range keys {
		if !key.RevokedAt.IsZero() || len(key.Hash) != len(apikey.Hash{}) {
			continue // revoked, or no secret can match it
		}
		c := &caller{id: key.ID, policy: key.Policy, hash: apikey.Hash(key.Hash)}
		if known := last.callers[key.ID]; known != nil {
			c.limiter, c.multiparts = known.limiter, known.multiparts
		} else {
			c.limiter, c.multiparts = rate.NewLimiter(k.rate, k.burst), make(chan struct{}, maxKeyMultiparts)
		}
		callers[key.ID] = c
	}
	return &snapshot{at: began, callers: callers}
}

// limit refuses requests over the caller's rate.
func (k *keyring) limit(c *caller) error {
	now := k.now()
	reserved := c.limiter.ReserveN(now, 1)
	delay := reserved.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	reserved.CancelAt(now)
	p := problemOf(kindRate, "")
	p.retryAfter = delay
	p.errors[0].Detail = fmt.Sprintf("Rate limit: %g requests/s, burst of %d. Retry in %d s.", float64(k.rate), k.burst, p.retrySeconds())
	return p
}

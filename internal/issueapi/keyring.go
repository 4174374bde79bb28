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
	// RevokedWithin is how long a key may still be good after it was revoked: keys are
	// read again when they are older. To ask the database with every request would cost
	// it a query for each upload.
	RevokedWithin = 5 * time.Second
	// newWithin is the same for a key that is not known yet. It bounds what somebody who
	// makes keys up can have us ask the database: one list a second.
	newWithin = time.Second
	// listTimeout bounds the reading of all keys.
	listTimeout = 2 * time.Second
)

// A caller is whose key a request came with.
type caller struct {
	id, policy string
	hash       apikey.Hash
	limiter    *rate.Limiter
}

// A keyring holds all keys in memory, so that checking one asks the database seldom, and
// a key that nobody has costs no memory: the caller who makes keys up fills no cache.
type keyring struct {
	keys    Keys
	rate    rate.Limit
	burst   int
	now     func() time.Time
	current atomic.Pointer[snapshot]
	reading chan struct{} // holds one token while somebody reads the keys
}

// A snapshot is all keys as they were read, or why they could not be.
type snapshot struct {
	at      time.Time
	callers map[string]*caller // without those that were revoked; nil after a failure
	err     error

	// limiters are those of the last reading that was none of a failure, so that neither
	// another reading nor an outage gives anybody a new rate. There is one for each key
	// that exists and for no other, so their number is bounded.
	limiters map[string]*rate.Limiter
}

func newKeyring(keys Keys, limit rate.Limit, burst int, now func() time.Time) *keyring {
	k := &keyring{keys: keys, rate: limit, burst: burst, now: now, reading: make(chan struct{}, 1)}
	k.current.Store(&snapshot{})
	return k
}

// check returns whose key a request came with. The error is a problem, and the same
// one whether the id is unknown, the key was revoked or the secret is wrong: which of
// them it is would tell a stranger what ids there are.
func (k *keyring) check(ctx context.Context, header http.Header) (*caller, error) {
	text, err := bearer(header)
	if err != nil {
		return nil, err
	}
	id, secret, err := apikey.Parse(text)
	if err != nil {
		return nil, problemOf(kindUnauthenticated, "the Authorization header holds no API key of this issuer")
	}
	found, err := k.find(ctx, id)
	if err != nil {
		return nil, err
	}
	// An unknown id is compared with a hash that no secret has, so that it takes as long
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

// bearer takes the key out of the one Authorization header. Of two, a proxy and we
// might each look at another one.
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

// find returns the caller with that id, or nil.
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
	// Somebody else may have read them while this request waited.
	if s = k.current.Load(); k.stale(s, id) {
		s = k.read(ctx, s)
		k.current.Store(s)
	}
	return s.callers[id], s.err
}

// stale tells whether s is too old to say anything about id. A failure is kept for as
// long as an id that is not there, so that an outage of the database is not answered
// with a queue of requests that wait for it one after the other.
func (k *keyring) stale(s *snapshot, id string) bool {
	age := k.now().Sub(s.at)
	if s.callers[id] != nil {
		return age >= RevokedWithin
	}
	return age >= newWithin
}

// read reads all keys. It continues when ctx ends: the caller may have gone, but others wait.
func (k *keyring) read(ctx context.Context, last *snapshot) *snapshot {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listTimeout)
	defer cancel()
	s := &snapshot{at: k.now()} // before, so that what happens meanwhile counts as not seen
	keys, err := k.keys.List(ctx)
	if err != nil {
		// A failure counts from its end: it may have taken longer than it is kept.
		s.at, s.err, s.limiters = k.now(), fmt.Errorf("list API keys: %w", err), last.limiters
		return s
	}
	s.callers, s.limiters = make(map[string]*caller, len(keys)), make(map[string]*rate.Limiter, len(keys))
	for _, key := range keys {
		if !key.RevokedAt.IsZero() || len(key.Hash) != len(apikey.Hash{}) {
			continue // was revoked, or no secret opens it
		}
		limiter := last.limiters[key.ID]
		if limiter == nil {
			limiter = rate.NewLimiter(k.rate, k.burst)
		}
		s.limiters[key.ID] = limiter
		s.callers[key.ID] = &caller{id: key.ID, policy: key.Policy, hash: apikey.Hash(key.Hash), limiter: limiter}
	}
	return s
}

// limit refuses what goes over the caller's rate.
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

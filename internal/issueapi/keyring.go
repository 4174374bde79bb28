package issueapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"upcall/internal/apikey"
)

// A caller owns the key that came with a request.
type caller struct {
	id, policy string
	limiter    *rate.Limiter
	multiparts chan struct{} // holds a token for each multipart upload being issued for this key
}

// A keyring knows the keys that are valid, and the limits of each.
type keyring struct {
	ring  *apikey.Ring[*caller]
	keys  Keys
	rate  rate.Limit
	burst int
	now   func() time.Time
	last  map[string]*caller // of the latest reading that succeeded
}

func newKeyring(keys Keys, limit rate.Limit, burst int, now func() time.Time) *keyring {
	k := &keyring{keys: keys, rate: limit, burst: burst, now: now}
	k.ring = apikey.NewRing(k.read, now)
	return k
}

// check returns the caller whose key a request came with. The error is a problem, or that of
// the keys.
func (k *keyring) check(ctx context.Context, header http.Header) (*caller, error) {
	holder, err := k.ring.Check(ctx, header)
	if errors.Is(err, apikey.ErrInvalid) {
		return nil, problemOf(kindUnauthenticated, err.Error())
	} else if err != nil {
		return nil, err
	}
	return holder.Owns, nil
}

// read reads all keys; the ring makes one call at a time.
//
// A key keeps its limits from one reading to the next, even through an outage, so that its
// rate is not reset. Only keys that exist have limiters, which bounds their number.
func (k *keyring) read(ctx context.Context) ([]apikey.Holder[*caller], error) {
	keys, err := k.keys.List(ctx)
	if err != nil {
		return nil, err
	}
	callers := make(map[string]*caller, len(keys))
	var valid []apikey.Holder[*caller]
	for _, key := range keys {
		if !key.RevokedAt.IsZero() || len(key.Hash) != len(apikey.Hash{}) {
			continue // revoked, or no secret can match it
		}
		c := &caller{id: key.ID, policy: key.Policy}
		if known := k.last[key.ID]; known != nil {
			c.limiter, c.multiparts = known.limiter, known.multiparts
		} else {
			c.limiter, c.multiparts = rate.NewLimiter(k.rate, k.burst), make(chan struct{}, maxKeyMultiparts)
		}
		callers[key.ID] = c
		valid = append(valid, apikey.Holder[*caller]{ID: key.ID, Hash: apikey.Hash(key.Hash), Owns: c})
	}
	k.last = callers
	return valid, nil
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

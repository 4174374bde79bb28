package verify

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"upcall/internal/fault"
)

const (
	// keyFresh is how long a fetched key is used before it is fetched again.
	keyFresh = 10 * time.Minute
	// keyRetry is how long a failed fetch answers all requests, so that forged ones cannot
	// make us flood the key server.
	keyRetry = 3 * time.Second
)

// trust returns the keys that the operator trusts, by their values of x-oss-pub-key-url. The error lists all mistakes.
func trust(urls []string, now func() time.Time) (map[string]*trustedKey, error) {
	client := newKeyClient()
	keys := make(map[string]*trustedKey, len(urls))
	var faults fault.List
	for i, raw := range urls {
		if err := checkTrustURL(raw); err != nil {
			faults.Add(fault.In(fmt.Sprintf("trusted key URL %d", i+1), err))
			continue
		}
		fetch := func() (*publicKey, error) { return fetchKey(client, raw) }
		keys[base64.StdEncoding.EncodeToString([]byte(raw))] = &trustedKey{fetch: fetch, now: now}
	}
	return keys, faults.Err()
}

// checkTrustURL says what is wrong with a trusted key URL and how to fix it.
func checkTrustURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		// A URL that does not parse is not shown: its password could be anywhere.
		return errors.New("not a URL: give the whole URL of the PEM file, such as https://host/key.pem")
	}
	shown := u.Redacted()
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%q is not an absolute http or https URL: "+
			"give the whole URL of the PEM file, such as https://host/key.pem", shown)
	case u.User != nil:
		return fmt.Errorf("%q has a user name in it: leave it out", shown)
	case strings.Contains(raw, "#"):
		return fmt.Errorf("%q has a fragment: leave out what follows the #", shown)
	// Over http, anyone on the network path could replace OSS's key with their own.
	case isOfficialHost(u.Hostname()) && u.Scheme != "https":
		return fmt.Errorf("%q would be fetched without TLS: write https://", shown)
	}
	return nil
}

// isOfficialHost compares as DNS does: case and a final dot make no difference.
func isOfficialHost(host string) bool {
	return strings.EqualFold(strings.TrimSuffix(host, "."), officialHost)
}

// A trustedKey is a key that is fetched when it is first needed, and kept.
type trustedKey struct {
	fetch func() (*publicKey, error)
	now   func() time.Time

	mu       sync.Mutex
	key      *publicKey
	err      error         // why there is no key
	until    time.Time     // when key or err expires
	fetching chan struct{} // closed when the current fetch ends; nil if there is none
}

// get returns the key, and waits for it if it is being fetched. All callers meanwhile
// share one fetch; the end of ctx ends only the caller's own wait.
func (t *trustedKey) get(ctx context.Context) (*publicKey, error) {
	t.mu.Lock()
	if t.now().Before(t.until) {
		defer t.mu.Unlock()
		return t.key, t.err
	}
	if t.fetching == nil {
		t.fetching = make(chan struct{})
		go t.refresh()
	}
	fetching := t.fetching
	t.mu.Unlock()

	select {
	case <-fetching:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrCanceled, context.Cause(ctx))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.key, t.err
}

// refresh fetches the key. If that fails, an old key stays in use: an outage of its server
// does not make it less trustworthy.
func (t *trustedKey) refresh() {
	key, err := t.fetch()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.key, t.err, t.until = key, nil, t.now().Add(keyFresh)
	case t.key != nil:
		t.until = t.now().Add(keyFresh)
	default:
		t.err, t.until = err, t.now().Add(keyRetry)
	}
	close(t.fetching)
	t.fetching = nil
}

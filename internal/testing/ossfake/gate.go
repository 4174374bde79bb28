package ossfake

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A Pass handles a request at a gate; serve is the emulator.
type Pass func(w http.ResponseWriter, r *http.Request, serve http.Handler)

// A Gate stands in front of an emulator and notes each request.
type Gate struct {
	*httptest.Server

	emulator http.Handler
	mu       sync.Mutex
	pass     Pass
	seen     []string
}

// NewGate serves an emulator behind a gate that lets everything through.
func NewGate(t testing.TB, emulator http.Handler) *Gate {
	t.Helper()
	g := &Gate{emulator: emulator, pass: through}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Server.Close)
	return g
}

func through(w http.ResponseWriter, r *http.Request, serve http.Handler) { serve.ServeHTTP(w, r) }

// Between sets what happens to requests from now on, and forgets earlier ones.
func (g *Gate) Between(pass Pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass, g.seen = pass, nil
}

// Open lets everything through from now on, and forgets earlier requests.
func (g *Gate) Open() { g.Between(through) }

// Kind returns how a gate notes a request: "PUT 3" for part 3, otherwise the method alone.
func Kind(r *http.Request) string {
	return strings.TrimSpace(r.Method + " " + r.URL.Query().Get("partNumber"))
}

// Seen returns the kinds of the requests that came.
func (g *Gate) Seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.seen)
}

// Puts returns the kinds of the PUTs that came, sorted.
func (g *Gate) Puts() []string {
	puts := slices.DeleteFunc(g.Seen(), func(kind string) bool { return !strings.HasPrefix(kind, http.MethodPut) })
	slices.Sort(puts)
	return puts
}

// Count returns how many requests of a kind came. "PUT *" counts those of all parts.
func (g *Gate) Count(kind string) int {
	prefix, any := strings.CutSuffix(kind, "*")
	return len(slices.DeleteFunc(g.Seen(), func(seen string) bool {
		return seen != kind && !(any && strings.HasPrefix(seen, prefix))
	}))
}

func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.seen = append(g.seen, Kind(r))
	pass := g.pass
	g.mu.Unlock()
	pass(w, r, g.emulator)
}

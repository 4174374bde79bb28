package console

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"upcall/internal/api"
)

const (
	cookieName = "upcall_console"
	// sessionTime is how long someone stays logged in, and mostSessions how many may be: the oldest ends.
	sessionTime, mostSessions = 12 * time.Hour, 1000
)

// A session is someone who has logged in. It holds no key: only who has one, and the hash of it.
type session struct {
	caller api.Caller
	begun  time.Time
}

// sessions are kept in this process, by digests of what browsers have, and end with it.
type sessions struct {
	now func() time.Time

	mu  sync.Mutex
	all map[[32]byte]*session
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, all: make(map[[32]byte]*session)}
}

// begin begins a session under a new name, so that one that someone else has planted in the browser is not theirs.
func (s *sessions) begin(w http.ResponseWriter, r *http.Request, caller api.Caller) {
	name := rand.Text() + rand.Text() // 256 bits
	s.end(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.all) >= mostSessions {
		var oldest [32]byte
		for digest, one := range s.all {
			if there := s.all[oldest]; there == nil || one.begun.Before(there.begun) {
				oldest = digest
			}
		}
		delete(s.all, oldest)
	}
	s.all[sha256.Sum256([]byte(name))] = &session{caller, s.now()}
	http.SetCookie(w, cookie(r, name, int(sessionTime/time.Second)))
}

// cookie returns the session's cookie. Scripts cannot read it, no other site has it sent, and a connection that was encrypted
// does not become another.
func cookie(r *http.Request, name string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: name, Path: Prefix, MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	}
}

func digestOf(r *http.Request) (digest [32]byte, ok bool) {
	sent, err := r.Cookie(cookieName)
	if err != nil || sent.Value == "" {
		return digest, false
	}
	return sha256.Sum256([]byte(sent.Value)), true
}

// find returns the session of a request, or nil.
func (s *sessions) find(r *http.Request) *session {
	digest, ok := digestOf(r)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.all[digest]
	if found != nil && s.now().Sub(found.begun) >= sessionTime {
		delete(s.all, digest)
		return nil
	}
	return found
}

// end ends the session of a request, if it has one.
func (s *sessions) end(r *http.Request) {
	if digest, ok := digestOf(r); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, digest)
	}
}

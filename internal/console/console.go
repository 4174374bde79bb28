// Package console is the pages for operators on the receiver's admin listener.
//
// It has no data and no rights of its own: each page and each act is a call of package api, made in
// the process, as the holder of the key that someone has logged in with. So whatever the API
// refuses a viewer, the console refuses them, too.
package console

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"upcall/internal/api"
	"upcall/internal/apikey"
)

// Prefix is where the pages are.
const Prefix = "/console/"

//go:embed static
var files embed.FS

// Config is what a [Console] needs.
type Config struct {
	// API answers all calls. Required.
	API *api.Server
	// Logger is told who logs in. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Console shows pages.
type Console struct {
	cfg      Config
	sessions *sessions
	pages    map[string]*pages // by language
	mux      *http.ServeMux
}

// New returns a console. The error is about its own templates.
func New(cfg Config) (*Console, error) {
	if cfg.API == nil || cfg.Logger == nil {
		return nil, errors.New("console: API and Logger are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Console{cfg: cfg, sessions: newSessions(cfg.Now), pages: make(map[string]*pages), mux: http.NewServeMux()}
	for _, language := range languages {
		p, err := newPages(language)
		if err != nil {
			return nil, err
		}
		c.pages[language] = p
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, err
	}
	c.mux.Handle("GET /console/static/", http.StripPrefix("/console/static/", http.FileServerFS(static)))
	c.mux.HandleFunc("GET /console/login", c.showLogin)
	c.mux.HandleFunc("POST /console/login", c.logIn)
	c.mux.HandleFunc("POST /console/logout", c.logOut)
	for pattern, show := range c.routes() {
		c.mux.HandleFunc(pattern, c.known(show))
	}
	return c, nil
}

// A view answers a request of someone who has logged in.
type view func(http.ResponseWriter, *visit)

// routes lists every page and act for those who have logged in. Acts need the role that the API says.
func (c *Console) routes() map[string]view {
	return map[string]view{
		"GET /console/{$}":               c.health,
		"GET /console/events":            c.events,
		"GET /console/events/stream":     c.stream,
		"GET /console/uploads":           c.search,
		"GET /console/uploads/{id}":      c.story,
		"GET /console/hooks":             c.hooks,
		"POST /console/hooks":            c.addHook,
		"GET /console/hooks/{id}":        c.hook,
		"POST /console/hooks/{id}/{act}": c.actOnHook,
		"GET /console/refusals":          c.refusals,
		"GET /console/refusals/{name}":   c.capture,
		"GET /console/loss":              c.loss,
		"GET /console/spool":             c.spool,
		"POST /console/spool/{act}":      c.actOnSpool,
		"/console/":                      c.nothing,
	}
}

// policy lets a page load what is on this listener and nothing else, so that a text that someone else chose, such as an
// object key, could do nothing even if a template did not escape it. No other site can put a page in a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Register adds the pages to the handler of the admin listener.
func (c *Console) Register(mux *http.ServeMux) {
	// Refuses what a page of another site has a browser send, beside SameSite=Strict: logging in as someone else, too.
	protection := http.NewCrossOriginProtection()
	mux.Handle(Prefix, protection.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		c.mux.ServeHTTP(w, r)
	})))
	mux.Handle("GET /{$}", http.RedirectHandler(Prefix, http.StatusSeeOther))
	mux.Handle("GET /console", http.RedirectHandler(Prefix, http.StatusSeeOther))
}

// A visit is a request of someone who has logged in.
type visit struct {
	*http.Request
	console *Console
	session *session
	caller  api.Caller
}

// known calls show for those who have logged in, and sends others to do so.
func (c *Console) known(show view) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := c.sessions.find(r)
		if s == nil {
			http.Redirect(w, r, Prefix+"login", http.StatusSeeOther)
			return
		}
		caller, err := c.who(s)(r.Context())
		if err != nil { // the key was revoked
			c.sessions.end(r)
			http.Redirect(w, r, Prefix+"login", http.StatusSeeOther)
			return
		}
		show(w, &visit{r, c, s, caller})
	}
}

// who returns the caller of a session. While the keys cannot be read, which is when an operator needs the pages most, those who
// have logged in before may look: a key that was revoked meanwhile can still do nothing.
func (c *Console) who(s *session) api.Who {
	return func(ctx context.Context) (api.Caller, error) {
		caller, err := c.cfg.API.Still(ctx, s.caller)
		if err != nil && !errors.Is(err, apikey.ErrInvalid) {
			caller, err = s.caller, nil
			caller.Role = api.Viewer
		}
		return caller, err
	}
}

func (c *Console) showLogin(w http.ResponseWriter, r *http.Request) {
	c.render(w, r, http.StatusOK, "login", page{Title: "Log in"})
}

// logIn begins a session.
func (c *Console) logIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	caller, err := c.cfg.API.Recognize(r.Context(), r.PostFormValue("key"))
	switch {
	case errors.Is(err, apikey.ErrInvalid):
		c.render(w, r, http.StatusUnauthorized, "login", page{Title: "Log in", Error: "This is not a valid key with a role."})
		return
	case err != nil:
		c.render(w, r, http.StatusServiceUnavailable, "login", page{Title: "Log in", Error: "The keys cannot be read now: the database does not answer."})
		return
	}
	c.cfg.Logger.InfoContext(r.Context(), "console: logged in", slog.String("api_key_id", caller.ID), slog.String("role", string(caller.Role)))
	c.sessions.begin(w, r, caller)
	http.Redirect(w, r, Prefix, http.StatusSeeOther)
}

func (c *Console) logOut(w http.ResponseWriter, r *http.Request) {
	c.sessions.end(r)
	http.SetCookie(w, cookie(r, "", -1))
	http.Redirect(w, r, Prefix+"login", http.StatusSeeOther)
}

func (c *Console) nothing(w http.ResponseWriter, v *visit) {
	v.show(w, http.StatusNotFound, "problem", "Not found", map[string]any{"title": "Not found", "detail": v.URL.Path})
}

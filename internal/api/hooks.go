package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"upcall/internal/fault"
	"upcall/internal/hooks"
	"upcall/internal/webhook"
)

const (
	// changeTimeout limits a change, which waits until the receiver that delivers to the endpoint
	// knows of it, and a sample, which waits for the application.
	changeTimeout = 30 * time.Second
	// keepSecret is for how long two secrets sign if a rotation does not say so.
	keepSecret = 24 * time.Hour
	// someAttempts and mostAttempts are how many attempts a call lists.
	someAttempts, mostAttempts = 100, 1000
)

// changing returns the context of a change. It goes on when the client leaves: half of a change
// is worse than one whose answer is lost.
func changing(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
}

// getHooks lists all endpoints.
func (s *Server) getHooks(w http.ResponseWriter, r *http.Request) error {
	if err := parseQuery(r.URL.RawQuery).faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	all, err := s.cfg.Endpoints.List(ctx)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"hooks": all})
}

// postHook makes an endpoint.
func (s *Server) postHook(w http.ResponseWriter, r *http.Request) error {
	var settings hooks.Change
	var secret *webhook.Secret
	var from hooks.Start
	known := changeMembers(&settings)
	known["secret"] = given(&secret, parsed(webhook.ParseSecret))
	known["from"] = parsed(parseFrom)(&from)
	if err := read(r, known.read); err != nil {
		return err
	}
	if err := checkName(settings.Name); err != nil {
		return err
	}
	ctx, cancel := changing(r)
	defer cancel()
	made, signing, err := s.cfg.Endpoints.Add(ctx, settings.Apply(hooks.Settings{}), valueOf(secret), from)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/hooks/"+made.ID.String())
	return writeSecret(w, http.StatusCreated, made, signing, secret == nil)
}

// getHook returns an endpoint.
func (s *Server) getHook(w http.ResponseWriter, r *http.Request) error {
	if err := parseQuery(r.URL.RawQuery).faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	found, err := s.cfg.Endpoints.Get(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}

// patchHook changes the settings of an endpoint that are given.
func (s *Server) patchHook(w http.ResponseWriter, r *http.Request) error {
	var change hooks.Change
	if err := read(r, changeMembers(&change).read); err != nil {
		return err
	}
	if change == (hooks.Change{}) {
		return fault.New(errMember, "body", "give the members to change", "it changes nothing")
	}
	if err := checkName(change.Name); err != nil {
		return err
	}
	ctx, cancel := changing(r)
	defer cancel()
	changed, err := s.cfg.Endpoints.Update(ctx, r.PathValue("id"), change)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, changed)
}

// deleteHook removes an endpoint.
func (s *Server) deleteHook(w http.ResponseWriter, r *http.Request) error {
	if err := read(r, members{}.readIfAny); err != nil {
		return err
	}
	ctx, cancel := changing(r)
	defer cancel()
	if err := s.cfg.Endpoints.Remove(ctx, r.PathValue("id")); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postTest sends a sample. Its answer is 200 also if the application's was no success.
func (s *Server) postTest(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, s.cfg.Endpoints.Test)
}

func (s *Server) postPause(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, s.cfg.Endpoints.Pause)
}

func (s *Server) postResume(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, s.cfg.Endpoints.Resume)
}

// act does to an endpoint what takes no settings.
func act[T any](w http.ResponseWriter, r *http.Request, what func(context.Context, string) (T, error)) error {
	if err := read(r, members{}.readIfAny); err != nil {
		return err
	}
	ctx, cancel := changing(r)
	defer cancel()
	done, err := what(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, done)
}

// postRotate replaces the secret of an endpoint.
func (s *Server) postRotate(w http.ResponseWriter, r *http.Request) error {
	var secret *webhook.Secret
	keep := keepSecret
	known := members{"secret": given(&secret, parsed(webhook.ParseSecret)), "keep": parsed(parseKeep)(&keep)}
	if err := read(r, known.readIfAny); err != nil {
		return err
	}
	ctx, cancel := changing(r)
	defer cancel()
	rotated, signing, err := s.cfg.Endpoints.Rotate(ctx, r.PathValue("id"), valueOf(secret), keep)
	if err != nil {
		return err
	}
	return writeSecret(w, http.StatusOK, rotated, signing, secret == nil)
}

// postRedeliver has messages sent again to an endpoint.
func (s *Server) postRedeliver(w http.ResponseWriter, r *http.Request) error {
	what := hooks.Redelivery{Endpoint: r.PathValue("id")}
	known := members{
		"event": parsed(parseEventID)(&what.Event), "since": parsed(hooks.ParseTime)(&what.Since), "until": parsed(hooks.ParseTime)(&what.Until),
	}
	if err := read(r, known.readIfAny); err != nil {
		return err
	}
	// There may be millions. What was done when the client leaves stays, and doing it again is no harm.
	w.(*answer).endless()
	ctx, done, err := s.wait(r.Context(), byPoll)
	if err != nil {
		return err
	}
	defer done()
	n, err := s.cfg.Endpoints.Redeliver(ctx, what)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]int{"redelivered": n})
}

// getAttempts lists the latest attempts of an endpoint.
func (s *Server) getAttempts(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "before", "limit")
	limit := p.number("limit", someAttempts, 1, mostAttempts)
	var before time.Time
	if text := p.text("before"); text != "" {
		var err error
		before, err = hooks.ParseTime(text)
		p.faults.Add(fault.In("before", err))
	}
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	all, err := s.cfg.Endpoints.Attempts(ctx, r.PathValue("id"), before, limit)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"attempts": all})
}

// read reads a request that has no query.
func read(r *http.Request, body func(*http.Request) error) error {
	faults := parseQuery(r.URL.RawQuery).faults
	err := body(r)
	if err != nil && asProblem(err).kind != kindMalformed {
		return err
	}
	faults.Add(err)
	return faults.Err()
}

// checkName refuses the empty name, which package hooks takes for one to be made.
func checkName(name *string) error {
	if name != nil && *name == "" {
		return fault.New(errMember, "name", "leave it out", "it is empty")
	}
	return nil
}

func valueOf(secret *webhook.Secret) webhook.Secret {
	if secret == nil {
		return webhook.Secret{} // one is made
	}
	return *secret
}

// writeSecret answers with an endpoint and, if we made it, its secret.
func writeSecret(w http.ResponseWriter, status int, e hooks.Endpoint, secret webhook.Secret, made bool) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if made {
		body = append(append(append(body[:len(body)-1], `,"secret":"`...), secret.Reveal()...), `"}`...)
	}
	writeBody(w, status, "application/json", body)
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBody(w, status, "application/json", body)
	return nil
}

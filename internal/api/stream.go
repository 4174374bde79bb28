package api

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/event"
	"upcall/internal/feed"
)

const (
	// streamPage is how many entries a stream holds while it waits for its client.
	streamPage = 64
	// streamPause is before the log is read again after the database could not be reached.
	streamPause = time.Second
)

// getStream sends the events after a cursor as server-sent events (WHATWG HTML, section 9.2), until
// the client leaves, takes nothing, or the receiver stops.
func (s *Server) getStream(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "after", "bucket", "key_prefix", varParameter)
	name, text := "after", p.text("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" { // the client goes on
		name, text = "Last-Event-ID", last
	}
	at, matches := p.place(name, text), p.filter()
	if name == "Last-Event-ID" && at.now {
		p.place(name, "now ") // no event has this id
	}
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, done, err := s.wait(r.Context(), byStream)
	if err != nil {
		return err
	}
	defer done()
	after, err := s.find(ctx, at)
	if err != nil {
		return err
	}
	page, err := s.page(ctx, ctx, after, streamPage, false)
	if err != nil {
		return err // while it can still be a problem document
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	out := &stream{answer: w.(*answer), matches: matches, sent: s.metrics.events.WithLabelValues(byStream),
		poison: func(e feed.Entry, err error) { s.poison(ctx, e, err) }}
	if err := out.comment(); err != nil {
		return nil // the client is gone
	}
	err = s.follow(ctx, r, out, page)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.metrics.dropped.Inc()
		return &problem{kind: kindUnavailable, detail: "the client took nothing for too long", cause: err}
	}
	return err
}

// follow sends a page and all that come after it.
func (s *Server) follow(ctx context.Context, r *http.Request, out *stream, page feed.Page) error {
	tick := time.Now().Add(s.cfg.Ping)
	for ctx.Err() == nil {
		if err := out.send(page); err != nil {
			return gone(err)
		}
		if now := time.Now(); !now.Before(tick) {
			tick = now.Add(s.cfg.Ping)
			if _, err := s.authorize(r, Viewer); err != nil && !errors.Is(err, event.ErrUnavailable) {
				return err // the key was revoked
			}
			if err := out.comment(); err != nil {
				return gone(err)
			}
		}
		next, err := s.nextPage(ctx, page.Next, tick)
		switch {
		case errors.Is(err, event.ErrUnavailable):
			pause(ctx, min(streamPause, time.Until(tick)))
			page.Entries = nil
		case err != nil:
			return err // the client learns it when it connects again
		default:
			page = next
		}
	}
	return nil
}

// gone returns nil for a client that has left, which is no problem, and err for one that takes
// nothing.
func gone(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// nextPage waits for a page until a time.
func (s *Server) nextPage(ctx context.Context, after feed.Cursor, until time.Time) (feed.Page, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return s.cfg.Log.Next(ctx, after, streamPage)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// A stream writes server-sent events.
type stream struct {
	*answer
	matches func(*event.Event) bool // nil matches all
	poison  func(feed.Entry, error)
	sent    prometheus.Counter
	buffer  []byte
}

// comment sends a line that clients ignore, so that they and proxies see that the stream lives.
func (s *stream) comment() error {
	if _, err := s.Write([]byte(":\n\n")); err != nil {
		return err
	}
	return s.flush()
}

// send sends the events of a page.
func (s *stream) send(page feed.Page) error {
	sent := 0
	for i, entry := range page.Entries {
		if s.matches != nil && !s.matches(entry.Event) {
			continue
		}
		cursor := entry.Cursor
		if i == len(page.Entries)-1 {
			cursor = page.Next
		}
		s.buffer = append(append(append(s.buffer[:0], "id: "...), cursor.String()...), "\nevent: upload\ndata: "...)
		longer, err := entry.Event.AppendJSON(s.buffer) // on one line
		if err != nil {
			s.poison(entry, err)
			continue
		}
		s.buffer = append(longer, '\n', '\n')
		if _, err := s.Write(s.buffer); err != nil {
			return err
		}
		sent++
	}
	if sent == 0 {
		return nil
	}
	s.sent.Add(float64(sent))
	return s.flush()
}

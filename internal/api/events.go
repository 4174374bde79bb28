package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"upcall/internal/feed"
)

const (
	// searchTime is how long a call without wait looks for events that match its filter: it
	// answers with fewer, and with the place where the next call goes on.
	searchTime = 2 * time.Second
	// mostAnswer is about the most of an answer, in bytes.
	mostAnswer = 4 << 20
)

// getEvents answers with the events after a cursor, and waits for the first if it is to.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "after", "limit", "wait", "bucket", "key_prefix", varParameter)
	at, limit, wait, matches := p.place("after", p.text("after")), p.number("limit", someEvents, 1, mostEvents), p.wait(), p.filter()
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, done, err := s.wait(r.Context(), byPoll)
	if err != nil {
		return err
	}
	defer done()
	after, err := s.find(ctx, at)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	until := time.Now().Add(max(wait, searchTime))
	body, count, most := []byte(`{"events":[`), 0, limit
	if matches != nil {
		most = mostEvents
	}
	for count < limit && len(body) < mostAnswer {
		page, err := s.page(ctx, waiting, after, most, wait > 0 && count == 0)
		if err != nil && count == 0 {
			return err
		} else if err != nil {
			break // the next call gets it
		}
		last := len(page.Entries) - 1
		for i, entry := range page.Entries {
			after = entry.Cursor
			if i == last {
				after = page.Next
			}
			if matches != nil && !matches(entry.Event) {
				continue
			}
			longer, err := entry.Event.AppendJSON(body)
			if err != nil {
				s.poison(ctx, entry, err)
				continue
			}
			body, count = append(longer, ','), count+1
			if count == limit || len(body) >= mostAnswer {
				break
			}
		}
		if last < 0 {
			after = page.Next
			break
		}
		if matches == nil && count > 0 || time.Now().After(until) || ctx.Err() != nil {
			break
		}
	}
	if count > 0 {
		body = body[:len(body)-1]
	}
	s.metrics.events.WithLabelValues(byPoll).Add(float64(count))
	body = append(append(append(body, `],"next":"`...), after.String()...), `"}`...)
	writeBody(w, http.StatusOK, "application/json", body)
	return nil
}

// page reads a page, and waits for its first entry if it is to.
func (s *Server) page(ctx, waiting context.Context, after feed.Cursor, most int, wait bool) (feed.Page, error) {
	if wait {
		return s.cfg.Log.Next(waiting, after, most)
	}
	// An answer that is on its way when the receiver stops is given.
	reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	return s.cfg.Log.Page(reading, after, most)
}

// poison logs an event that cannot be told, so that it does not end the telling of others.
func (s *Server) poison(ctx context.Context, entry feed.Entry, err error) {
	s.cfg.Logger.ErrorContext(ctx, "event cannot be told", slog.String("event_id", entry.Event.ID.String()), slog.String("error", err.Error()))
}

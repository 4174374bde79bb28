package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"upcall/internal/capture"
	"upcall/internal/story"
)

// Captures are refused callbacks with the doctor's verdicts, as capture.Examiner has them. It is an
// interface so that a receiver that keeps none has none.
type Captures interface {
	// Kept lists all of them.
	Kept() ([]capture.Entry, error)
	// List lists the latest, with the verdicts that there are in a moment.
	List(ctx context.Context, reason string, limit int) ([]capture.Summary, error)
	// Report returns what the doctor says about one.
	Report(ctx context.Context, name string) (*capture.Report, error)
}

// errNoCaptures says that none are kept.
var errNoCaptures = &problem{kind: kindNotFound,
	detail: "this receiver does not capture refused callbacks; see UPCALL_CAPTURE_REFUSED"}

// A refusal is a row of the table, and what this receiver has captured of it.
type refusal struct {
	story.Refusal
	Captured *string `json:"captured"`
}

// withCaptures adds the names of captures. Without them the rows are still true.
func (s *Server) withCaptures(rows []story.Refusal) []refusal {
	type moment struct {
		reason string
		at     time.Time
	}
	names := make(map[moment]string)
	if s.cfg.Captures != nil {
		kept, _ := s.cfg.Captures.Kept() // the list of captures says what is wrong
		for _, one := range kept {
			names[moment{one.Reason, one.At.UTC()}] = one.Name
		}
	}
	all := make([]refusal, 0, len(rows))
	for _, row := range rows {
		with := refusal{Refusal: row}
		if name, ok := names[moment{row.Reason, row.RefusedAt.UTC()}]; ok {
			with.Captured = &name
		}
		all = append(all, with)
	}
	return all
}

// getCaptured lists what this receiver has captured.
func (s *Server) getCaptured(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "reason", "limit")
	limit := p.number("limit", someRecords, 1, story.MostRecords)
	if err := p.faults.Err(); err != nil {
		return err
	}
	if s.cfg.Captures == nil {
		return errNoCaptures
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	list, err := s.cfg.Captures.List(ctx, p.text("reason"), limit)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"captured": list})
}

// getCapture says what the doctor says about one.
func (s *Server) getCapture(w http.ResponseWriter, r *http.Request) error {
	if err := parseQuery(r.URL.RawQuery).faults.Err(); err != nil {
		return err
	}
	if s.cfg.Captures == nil {
		return errNoCaptures
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	report, err := s.cfg.Captures.Report(ctx, r.PathValue("name"))
	switch {
	case errors.Is(err, capture.ErrNotKept):
		return &problem{kind: kindNotFound, detail: "this receiver keeps no such capture, or no longer"}
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{kind: kindUnavailable, detail: "the doctor has not come to it yet: ask again"}
	case err != nil:
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

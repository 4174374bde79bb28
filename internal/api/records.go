package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"upcall/internal/fault"
	"upcall/internal/spool"
	"upcall/internal/story"
	"upcall/internal/strictjson"
	"upcall/internal/vitals"
)

const (
	// someRecords is how many rows a list has if a call names no limit.
	someRecords = 100
	// someDays and mostDays are how far losses go back.
	someDays, mostDays = 30, 400
	// readyTime limits the check of health.
	readyTime = time.Second
)

// A Health is how this receiver is, as its own metrics and its checks say. Nothing of it needs the
// database but the loss, and the checks that say that it is away.
type Health struct {
	Ready       bool          `json:"ready"`
	ReadyDetail string        `json:"ready_detail"` // as /readyz says it
	Now         vitals.Now    `json:"now"`
	Spool       *SpoolState   `json:"spool"`      // null if there is none
	LossToday   *story.Loss   `json:"loss_today"` // of all buckets; null while it is not known
	Series      vitals.Series `json:"series"`
}

// A SpoolState is what the spool of this receiver holds, or the stream in its place.
type SpoolState struct {
	Kind        string     `json:"kind"`     // spool or stream
	Problem     *string    `json:"problem"`  // why it takes no callbacks now, as far as it is known
	Replicas    *int       `json:"replicas"` // servers that keep up with the stream; null for a spool
	Waiting     int        `json:"waiting"`
	Oldest      *time.Time `json:"oldest"` // when the first of them arrived
	Bytes       int64      `json:"bytes"`
	DeadLetters int        `json:"dead_letters"`
	Damaged     int        `json:"damaged_files"`
	// Streams are those that share the callbacks; null for a spool.
	Streams []StreamState `json:"streams"`
}

// A StreamState is what one stream holds. A dead letter may be in two.
type StreamState struct {
	Name        string `json:"name"`
	Replicas    int    `json:"replicas"`
	Waiting     int    `json:"waiting"`
	Bytes       int64  `json:"bytes"`
	DeadLetters int    `json:"dead_letters"`
}

// getHealth says how this receiver is.
func (s *Server) getHealth(w http.ResponseWriter, r *http.Request) error {
	if err := parseQuery(r.URL.RawQuery).faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTime)
	defer cancel()
	h := Health{Now: s.cfg.Vitals.Now(), Series: s.cfg.Vitals.Series(), Spool: s.fallbackState()}
	note, err := s.cfg.Ready(ctx)
	if h.Ready, h.ReadyDetail = err == nil, note; err != nil {
		h.ReadyDetail = fault.Line(err.Error())
	}
	day := s.cfg.Now().UTC().Truncate(24 * time.Hour)
	if losses, err := s.cfg.Stories.Losses(ctx, day); err == nil { // else it is not known, and the rest is still true
		h.LossToday = &story.Loss{Day: day.Format(time.DateOnly)}
		for _, l := range losses {
			if l.Day == h.LossToday.Day {
				h.LossToday.Received += l.Received
				h.LossToday.ByNotification += l.ByNotification
				h.LossToday.ByReconcile += l.ByReconcile
			}
		}
		lost := h.LossToday.ByNotification + h.LossToday.ByReconcile
		if all := h.LossToday.Received + lost; all > 0 {
			h.LossToday.LostShare = new(float64(lost) / float64(all))
		}
	}
	return writeJSON(w, http.StatusOK, h)
}

func (s *Server) fallbackState() *SpoolState {
	if s.cfg.Fallback == nil {
		return nil
	}
	return new(s.cfg.Fallback.state())
}

// getConsumers says how far each consumer of the log is, and what holds them.
func (s *Server) getConsumers(w http.ResponseWriter, r *http.Request) error {
	if err := parseQuery(r.URL.RawQuery).faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	status, err := s.cfg.Log.Status(ctx)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, status)
}

// getRefusals counts refusals by reason, and lists the latest of one.
func (s *Server) getRefusals(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "reason", "limit")
	limit := p.number("limit", someRecords, 1, story.MostRecords)
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	reasons, err := s.cfg.Stories.Reasons(ctx)
	if err != nil {
		return err
	}
	refusals := []story.Refusal{}
	if reason := p.text("reason"); reason != "" {
		if refusals, err = s.cfg.Stories.Refused(ctx, reason, limit); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"reasons": reasons, "refusals": s.withCaptures(refusals)})
}

// getRuns lists the latest comparisons of buckets with the log.
func (s *Server) getRuns(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "limit")
	limit := p.number("limit", someRecords, 1, story.MostRecords)
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	runs, err := s.cfg.Stories.Runs(ctx, limit)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"runs": runs})
}

// getLoss lists how many uploads no callback told of, by day.
func (s *Server) getLoss(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "days")
	days := p.number("days", someDays, 1, mostDays)
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	today := s.cfg.Now().UTC().Truncate(24 * time.Hour)
	losses, err := s.cfg.Stories.Losses(ctx, today.AddDate(0, 0, 1-days))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"days": losses})
}

// A DeadLetter is a callback that PostgreSQL cannot hold, in the spool of this receiver or in the stream.
type DeadLetter struct {
	EventID    uuid.UUID `json:"event_id"`
	ReceivedAt time.Time `json:"received_at"`
	Bucket     string    `json:"bucket"`
	ObjectKey  string    `json:"object_key"`
	Reason     string    `json:"reason"`
}

// errNoSpool says that there is neither.
var errNoSpool = &problem{kind: kindNotFound,
	detail: "this receiver has neither a spool nor a stream; see UPCALL_SPOOL_DIR and UPCALL_STREAM_URL"}

// getSpool says what the spool of this receiver holds, or the stream.
func (s *Server) getSpool(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "limit")
	limit := p.number("limit", someRecords, 1, story.MostRecords)
	if err := p.faults.Err(); err != nil {
		return err
	}
	if s.cfg.Fallback == nil {
		return errNoSpool
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	entries, err := s.cfg.Fallback.letters(ctx, limit)
	if err != nil {
		return err
	}
	letters := make([]DeadLetter, 0, len(entries))
	for _, e := range entries {
		letters = append(letters, DeadLetter{e.ID, e.ReceivedAt.UTC(), strings.ToValidUTF8(e.Bucket, "\uFFFD"),
			strings.ToValidUTF8(e.Object, "\uFFFD"), strings.ToValidUTF8(e.Reason, "\uFFFD")})
	}
	return writeJSON(w, http.StatusOK, map[string]any{"spool": s.fallbackState(), "dead_letters": letters})
}

func (s *Server) postRetry(w http.ResponseWriter, r *http.Request) error {
	return s.changeSpool(w, r, spool.ActionRetry)
}

func (s *Server) postDiscard(w http.ResponseWriter, r *http.Request) error {
	return s.changeSpool(w, r, spool.ActionDiscard)
}

// boolean reads true or false.
func boolean(to *bool) strictjson.Reader {
	return func(raw json.RawMessage) string {
		if json.Unmarshal(raw, to) != nil || string(raw) == "null" {
			return "is not true or false"
		}
		return ""
	}
}

// changeSpool does what an operator asks for with dead letters, while the receiver runs.
func (s *Server) changeSpool(w http.ResponseWriter, r *http.Request, action string) error {
	if s.cfg.Fallback == nil {
		return errNoSpool
	}
	var all bool
	var texts []string
	known := members{"all": boolean(&all), "events": strictjson.Texts(&texts)}
	if err := read(r, known.read); err != nil {
		return err
	}
	var faults fault.List
	var ids []uuid.UUID
	for _, text := range texts {
		id, err := parseEventID(text)
		ids = append(ids, id)
		faults.Add(fault.In("events", err))
	}
	if all == (len(texts) > 0) {
		faults.AddNew(errMember, "events", "give all or events", "it must say which dead letters")
	}
	if err := faults.Err(); err != nil {
		return err
	}
	ctx, cancel := changing(r)
	defer cancel()
	changed, err := s.cfg.Fallback.change(ctx, action, all, ids)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"changed": changed, "spool": s.fallbackState()})
}

package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"upcall/internal/fault"
	"upcall/internal/hooks"
	"upcall/internal/story"
)

// someStories is how many stories a search tells if it names no limit.
const someStories = 20

// getUpload tells the story of an issued upload.
func (s *Server) getUpload(w http.ResponseWriter, r *http.Request) error {
	faults := parseQuery(r.URL.RawQuery).faults
	id, err := uuid.Parse(r.PathValue("upload_id"))
	if err != nil || len(r.PathValue("upload_id")) != 36 {
		faults.AddNew(errParameter, "upload_id", "", "%s is not the id of an upload", fault.Quote(r.PathValue("upload_id")))
	}
	if err := faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	told, err := s.cfg.Stories.Get(ctx, id)
	if err != nil {
		return err
	}
	if told == nil {
		return &problem{kind: kindNotFound, detail: "nothing is known of an upload " + id.String()}
	}
	return writeJSON(w, http.StatusOK, told)
}

// getUploads tells the stories of the uploads that a search finds.
func (s *Server) getUploads(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "bucket", "key", "request_id", "event_id", "received_at", "limit", varParameter)
	search := story.Search{Bucket: p.text("bucket"), Key: p.text("key"), RequestID: p.text("request_id"),
		Limit: p.number("limit", someStories, 1, story.MostStories)}
	var err error
	if text := p.text("event_id"); text != "" {
		search.EventID, err = parseEventID(text)
		p.faults.Add(fault.In("event_id", err))
	}
	if text := p.text("received_at"); text != "" {
		search.ReceivedAt, err = hooks.ParseTime(text)
		p.faults.Add(fault.In("received_at", err))
	}
	for name, values := range p.values {
		variable, ok := strings.CutPrefix(name, varParameter)
		switch {
		case !ok:
		case search.Variable != "":
			p.faults.AddNew(errParameter, fault.Name(name), "leave one out", "uploads are found by one variable")
		default:
			search.Variable, search.Value = variable, values[0]
		}
	}
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	stories, err := s.cfg.Stories.Find(ctx, search)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string][]story.Story{"uploads": stories})
}

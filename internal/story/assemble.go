package story

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"
)

func compareKeys(a, b key) int { return cmp.Or(a.at.Compare(b.at), bytes.Compare(a.id[:], b.id[:])) }

// assemble puts together what belongs to the same issued upload, and else what belongs to the same object. The
// story with the latest time comes first.
func assemble(events []*Entry, refusals []Refusal, issued map[uuid.UUID]*Issued, places map[uuid.UUID]place) []Story {
	type owner struct {
		upload uuid.UUID
		place  place // of what was not issued
	}
	all := make(map[owner]*Story)
	of := func(upload uuid.UUID, at place) *Story {
		who := owner{upload: upload}
		if upload == uuid.Nil {
			who.place = at
		}
		s := all[who]
		if s == nil {
			s = &Story{Bucket: orNil(at.bucket), ObjectKey: orNil(at.key), Events: []Entry{}, Refusals: []Refusal{}}
			if upload != uuid.Nil {
				s.UploadID = &upload
			}
			all[who] = s
		}
		return s
	}
	for id, row := range issued {
		of(id, places[id]).Issued = row
	}
	for _, e := range events {
		s := of(e.Event.UploadID.UUID, place{e.Event.Callback.Bucket, e.Event.Callback.Object})
		s.Events = append(s.Events, *e)
		if s.Issued != nil && s.Issued.RevokedAt == nil && e.Counts {
			s.Issued.Status = "uploaded"
		}
	}
	for _, r := range refusals {
		var upload uuid.UUID
		if r.UploadID != nil {
			upload = *r.UploadID
		}
		s := of(upload, place{valueOf(r.Bucket), valueOf(r.ObjectKey)})
		s.Refusals = append(s.Refusals, r)
	}
	stories := make([]Story, 0, len(all))
	for _, s := range all {
		stories = append(stories, *s)
	}
	slices.SortFunc(stories, func(a, b Story) int {
		return cmp.Or(b.latest().Compare(a.latest()), cmp.Compare(valueOf(a.ObjectKey), valueOf(b.ObjectKey)))
	})
	return stories
}

// latest is the time of the last thing that happened.
func (s *Story) latest() (at time.Time) {
	if s.Issued != nil {
		at = s.Issued.IssuedAt
	}
	if n := len(s.Events); n > 0 && s.Events[n-1].Event.ReceivedAt.After(at) {
		at = s.Events[n-1].Event.ReceivedAt
	}
	if len(s.Refusals) > 0 && s.Refusals[0].RefusedAt.After(at) {
		at = s.Refusals[0].RefusedAt
	}
	return at
}

func valueOf(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

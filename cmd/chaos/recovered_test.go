package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

// TestAccount counts each upload by the best that tells of it, and checks what that supersedes.
func TestAccount(t *testing.T) {
	t.Parallel()
	made := func(etag string, source event.Source, supersedes *event.Event) *event.Event {
		e := &event.Event{ID: uuid.New(), Source: source, Callback: callbackspec.Callback{ETag: etag}}
		if supersedes != nil {
			e.Supersedes = uuid.NullUUID{UUID: supersedes.ID, Valid: true}
		}
		return e
	}
	const callback, notification, listing = event.SourceCallback, event.SourceNotification, event.SourceReconcile
	listed := made("E2", listing, nil)
	notified := made("E2", notification, listed)
	good := []*event.Event{made("E1", callback, nil), listed, notified, made("E2", callback, notified), made("E3", listing, nil)}
	for name, test := range map[string]struct {
		events     []*event.Event
		want       map[event.Source]int
		superseded int
		wrong      int
	}{
		"good":                 {good, map[event.Source]int{callback: 2, listing: 1}, 2, 0},
		"any lesser one":       {[]*event.Event{listed, notified, made("E2", callback, listed)}, map[event.Source]int{callback: 1}, 2, 0},
		"not superseded":       {[]*event.Event{listed, made("E2", callback, nil)}, map[event.Source]int{callback: 1}, 1, 1},
		"supersedes nothing":   {[]*event.Event{made("E1", callback, listed)}, map[event.Source]int{callback: 1}, 0, 1},
		"supersedes the wrong": {[]*event.Event{listed, made("E2", callback, good[0])}, map[event.Source]int{callback: 1}, 1, 1},
		"of another source":    {[]*event.Event{made("E1", "spool", nil)}, map[event.Source]int{}, 0, 1},
	} {
		a := make(account)
		for _, e := range test.events {
			a.add(e)
		}
		got, superseded, wrong := a.best()
		if diff := cmp.Diff(test.want, got); diff != "" || superseded != test.superseded || len(wrong) != test.wrong {
			t.Errorf("%s: %d superseded, %q\n%s", name, superseded, wrong, diff)
		}
	}
}

package spool

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/event"
	"upcall/internal/kept"
)

// TestRecordHoldsWholeEvent also fails when an event gets a field that records lack.
func TestRecordHoldsWholeEvent(t *testing.T) {
	t.Parallel()
	e := numbered(7)
	for _, v := range []reflect.Value{reflect.ValueOf(*e), reflect.ValueOf(e.Callback)} {
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Token" && name != "Acknowledged" {
				t.Errorf("the test's event has no %s", name)
			}
		}
	}
	e.Acknowledged = true // as all events from a spool
	withToken := *e
	withToken.Acknowledged = false
	withToken.Callback.Token = "secret"
	frame, err := kept.Encode(&kept.Record{Event: withToken})
	if err != nil {
		t.Fatal(err)
	}
	r, err := kept.Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*e, r.Event, sameEvent); diff != "" {
		t.Errorf("event (-put +got):\n%s", diff)
	}
	if strings.Contains(string(frame), "secret") {
		t.Error("the token is on disk")
	}
	for i := range frame {
		bad := slices.Clone(frame)
		bad[i] ^= 1
		if _, err := kept.Decode(bad); err == nil || !strings.HasPrefix(err.Error(), "a record has ") {
			t.Fatalf("byte %d was changed: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, frame[:5], frame[:len(frame)-1], append(slices.Clone(frame), 0)} {
		if _, err := kept.Decode(bad); err == nil || !strings.Contains(err.Error(), "the wrong length") {
			t.Errorf("%d bytes as a record: %v", len(bad), err)
		}
	}
}

func TestPutRefusesWhatPostgresCannotHold(t *testing.T) {
	t.Parallel()
	c, _ := config(t.TempDir())
	s := open(t, c)
	for name, change := range map[string]func(*event.Event){
		"not UTF-8":          func(e *event.Event) { e.Callback.Object = "\xff" },
		"NUL":                func(e *event.Event) { e.Callback.RequestID = "a\x00" },
		"variable not JSON":  func(e *event.Event) { e.Callback.Vars["x"] = []byte("{") },
		"variable not UTF-8": func(e *event.Event) { e.Callback.Vars["x"] = []byte("\"\xff\"") },
	} {
		e := numbered(1)
		change(e)
		if _, err := s.Put(t.Context(), e); !errors.Is(err, event.ErrUnstorable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if got := s.Stats().Queued; got != 0 {
		t.Errorf("%d queued", got)
	}
}

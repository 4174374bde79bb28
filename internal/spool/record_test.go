package spool

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

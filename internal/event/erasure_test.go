package event_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
)

func TestVarTextIsPostgreSQLs(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	for _, value := range []string{`"42"`, `42`, `-42`, `42.0`, `42.50`, `0`, `-0`, `0.00`, `-0.0`, `1e2`, `1E+2`, `1.5e1`, `1.50e1`, `15e-1`, `-1.25e-3`,
		`0e5`, `-0e0`, `12345678901234567890`, `1e30`, `true`, `false`, `""`, `"\u732b \"x\" \n"`, ` 7 `, `"猫"`, `"\ud83d\ude00"`} {
		var want string
		if err := pool.QueryRow(t.Context(), "SELECT $1::jsonb->>'v'", `{"v":`+value+`}`).Scan(&want); err != nil {
			t.Fatal(err)
		}
		if got, ok := event.VarText(json.RawMessage(value)); !ok || got != want {
			t.Errorf("%s is %q (%v), want %q", value, got, ok, want)
		}
	}
	for _, value := range []string{``, `null`, `{"a":1}`, `[42]`, `1e999999999`, `1e-1001`, `1e99999999999999999999`} {
		if got, ok := event.VarText(json.RawMessage(value)); ok {
			t.Errorf("%s is %q", value, got)
		}
	}
}

func TestErasureMatches(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	upload := uuid.NullUUID{UUID: uuid.UUID{1}, Valid: true}
	salt := []byte("salt")
	uid := event.Erasure{Before: at, Variable: "uid", Salt: salt, Digest: event.ErasureDigest(salt, "42")}
	of := func(uid string) event.Event {
		return event.Event{ReceivedAt: at.Add(-1), Callback: callbackspec.Callback{ClientIP: netip.MustParseAddr("192.0.2.1"),
			Vars: map[string]json.RawMessage{"uid": json.RawMessage(uid), "n": json.RawMessage("7")}}}
	}
	late, other, uploaded := of(`"42"`), event.Event{ReceivedAt: at.Add(-1)}, of(`"7"`)
	late.ReceivedAt = at
	uploaded.UploadID = upload
	for name, tt := range map[string]struct {
		erasure event.Erasure
		event   event.Event
		want    bool
	}{
		"a text":         {uid, of(`"42"`), true},
		"a number":       {uid, of(`42`), true},
		"another":        {uid, of(`"421"`), false},
		"another name":   {event.Erasure{Before: at, Variable: "n", Salt: salt, Digest: uid.Digest}, of(`"42"`), false},
		"another salt":   {event.Erasure{Before: at, Variable: "uid", Salt: nil, Digest: uid.Digest}, of(`"42"`), false},
		"no variables":   {uid, other, false},
		"received later": {uid, late, false},
		"an upload":      {event.Erasure{Before: at, Upload: upload}, uploaded, true},
		"another upload": {event.Erasure{Before: at, Upload: uuid.NullUUID{UUID: uuid.UUID{2}, Valid: true}}, uploaded, false},
		"no upload":      {event.Erasure{Before: at, Upload: upload}, of(`"42"`), false},
	} {
		if got := tt.erasure.Matches(&tt.event); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	e := of(`"42"`)
	if e.Erase(); len(e.Callback.Vars) > 0 || e.Callback.ClientIP.IsValid() {
		t.Errorf("after Erase: %+v", e)
	}
}

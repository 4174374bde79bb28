package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/recorder"
)

// replier is an application behind the reply hook.
type replier func(ctx context.Context, e *event.Event, repeat bool) []byte

func (r replier) Ask(ctx context.Context, e *event.Event, repeat bool) ([]byte, string) {
	return r(ctx, e, repeat), "asked"
}

// keeper is a recorder with a given outcome.
type keeper struct {
	outcome recorder.Outcome
	err     error
	found   recorder.Durable
}

func (k keeper) Record(context.Context, *event.Event) (recorder.Outcome, error) {
	return k.outcome, k.err
}

func (k keeper) Find(context.Context, uuid.UUID, uuid.NullUUID) (recorder.Durable, error) {
	return k.found, nil
}

// TestReply holds what becomes of an application's object, that it is asked about each callback
// that is durable and about no other, and that the answer is always 200, JSON and has a length.
func TestReply(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	const object = "{\"n\": 18446744073709551615,\"a\":\"<&>\"}"
	for _, tt := range []struct {
		name    string
		kept    keeper
		replace bool
		reply   string // "" is none
		late    bool   // the token has expired
		want    string // part of the answer; "" is a refusal
		repeat  bool
	}{
		{name: "member", reply: object, want: `"durable":"postgres","reply":` + object + "}"},
		{name: "whole", replace: true, reply: object, want: object},
		{name: "empty object", replace: true, reply: "{}", want: "{}"},
		{name: "none", want: `"durable":"postgres","reply":null}`},
		{name: "none of a whole", replace: true, want: `"durable":"postgres","reply":null}`},
		{name: "spooled", kept: keeper{outcome: recorder.Outcome{Durable: recorder.InSpool}}, reply: object, want: `"durable":"spool","reply":` + object + "}"},
		{name: "repeat", kept: keeper{outcome: recorder.Outcome{Durable: recorder.InPostgres, Duplicate: true}}, reply: object,
			want: `"duplicate":true,"durable":"postgres","reply":` + object + "}", repeat: true},
		{name: "repeat after the token has expired", kept: keeper{found: recorder.InPostgres}, late: true, reply: object,
			want: `"duplicate":true,"durable":"postgres","reply":` + object + "}", repeat: true},
		{name: "expired", late: true, reply: object},
		{name: "not recorded", kept: keeper{err: event.ErrUnavailable}, reply: object},
		{name: "revoked", kept: keeper{err: event.ErrRevoked}, reply: object},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			if tt.kept.outcome.Durable == "" {
				tt.kept.outcome.Durable = recorder.InPostgres
			}
			s := serve(t, o, nil, func(c *Config) {
				c.Recorder, c.ReplyReplaces = tt.kept, tt.replace
				c.Reply = replier(func(_ context.Context, e *event.Event, repeat bool) []byte {
					asked++
					if e == nil || e.ID == uuid.Nil || repeat != tt.repeat {
						t.Errorf("asked about %+v, repeat %v", e, repeat)
					}
					if tt.reply == "" {
						return nil
					}
					return []byte(tt.reply)
				})
				if tt.late {
					c.Now = func() time.Time { return noon.Add(2 * time.Hour) }
				}
			})
			u := issued(t, "a", "1")
			got := do(t, o.request(t, s.Public, path, string(callbackspec.Form), u.body(t, callbackspec.Form)))
			if tt.want == "" {
				if got.Code == 200 || asked != 0 || strings.Contains(got.Raw, "reply") {
					t.Errorf("got %d %s, asked %d times", got.Code, got.Raw, asked)
				}
				return
			}
			if got.Code != 200 || !strings.HasSuffix(got.Raw, tt.want) || asked != 1 || !json.Valid([]byte(got.Raw)) {
				t.Errorf("got %d %s, asked %d times", got.Code, got.Raw, asked)
			}
			if !strings.Contains(s.log.String(), `"reply":"asked"`) {
				t.Errorf("logged %s", s.log)
			}
		})
	}
}

// TestNoReplyHook holds that an answer is what it always was without the hook.
func TestNoReplyHook(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, func(c *Config) { c.Recorder = keeper{outcome: recorder.Outcome{Durable: recorder.InPostgres}} })
	got := do(t, o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a", "1").body(t, callbackspec.Form)))
	want := fmt.Sprintf(`{"status":"ok","event_id":%q,"upload_id":%q,"duplicate":false,"durable":"postgres"}`, got.EventID, *got.UploadID)
	if diff := cmp.Diff(want, got.Raw); diff != "" || strings.Contains(s.log.String(), "reply") {
		t.Errorf("answer (-want +got):\n%s\nlogged %s", diff, s.log)
	}
}

// TestReplyIsBounded holds that the application has until 3.8 s after the callback came, not
// after its commit, and that our own answer is sent if it takes all of that.
func TestReplyIsBounded(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	var before time.Time
	s := serve(t, o, nil, func(c *Config) {
		c.Recorder = slowly{before: time.Second}
		c.Reply = replier(func(ctx context.Context, _ *event.Event, _ bool) []byte {
			asked := time.Since(before)
			deadline, ok := ctx.Deadline()
			if left := deadline.Sub(before); !ok || left < 3800*time.Millisecond || left > 2800*time.Millisecond+asked {
				t.Errorf("asked after %v, until %v", asked, left)
			}
			<-ctx.Done()
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Error(ctx.Err())
			}
			return nil
		})
	})
	r := o.request(t, s.Public, path, string(callbackspec.Form), issued(t, "a", "1").body(t, callbackspec.Form))
	before = time.Now()
	if got := do(t, r); got.Code != http.StatusOK || !strings.HasSuffix(got.Raw, `"reply":null}`) {
		t.Errorf("got %d %s", got.Code, got.Raw)
	}
}

// slowly is a recorder that takes its time.
type slowly struct{ before time.Duration }

func (s slowly) Record(context.Context, *event.Event) (recorder.Outcome, error) {
	time.Sleep(s.before)
	return recorder.Outcome{Durable: recorder.InPostgres}, nil
}

func (slowly) Find(context.Context, uuid.UUID, uuid.NullUUID) (recorder.Durable, error) {
	return "", nil
}

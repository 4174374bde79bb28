package notify

import (
	"encoding/xml"
	"errors"
	"slices"
	"strings"
	"testing"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

// seeds are bodies of every form.
func seeds(t testing.TB) []string {
	u := put("a.txt")
	u.vars = map[string]string{"x:uid": "7"}
	u = u.mint(t, nil)
	removed := u
	removed.name = "ObjectRemoved:DeleteObject"
	return []string{
		message(u), inBase64(message(u, removed)), asXML(t, ourOwn, message(u)).body, asXML(t, ourOwn, inBase64(message(u))).body,
		asJSON(t, ourOwn, message(u)).body, cloudEvent(u), "[" + cloudEvent(u) + "," + cloudEvent(removed) + "]",
		`{"events":[` + u.eventWith(false) + `]}`, `{"events":[{"eventName":"ObjectCreated:PutObject"}]}`, "<Notification/>",
		"{", "[", "e30=", `{"Message":"e30="}`, "<Notification><Message>e30=</Message></Notification>",
		`{"specversion":"1.0","type":"oss:ObjectCreated:PutObject"}`, "\ufeff<Notification>\x00</Notification>", `{"events":[[]]}`, `{"events":[null]}`,
	}
}

// FuzzBody checks that whatever a body is, reading it ends with events that can be stored or one
// sentinel, and that what was read means the same when it is wrapped.
func FuzzBody(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		opened, err := openEnvelope(body)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("%v is not the sentinel", err)
			}
			return
		}
		told, ignored, err := readMessage(opened.message)
		if err != nil {
			if !errors.Is(err, errMalformed) || told != nil {
				t.Fatalf("%v is not the sentinel, or with %v", err, told)
			}
			return
		}
		wrapped, err := openEnvelope([]byte(inBase64(opened.message)))
		if err != nil || strings.TrimSpace(wrapped.message) != opened.message {
			t.Fatalf("in Base64 the message is %q, %v", wrapped.message, err)
		}
		again, ignoredAgain, err := readMessage(wrapped.message)
		if err != nil || len(again) != len(told) || ignoredAgain != ignored {
			t.Fatalf("%d and %d ignored, the second time %d and %d, %v", len(told), ignored, len(again), ignoredAgain, err)
		}
		for i, h := range told {
			if h.event.ID != again[i].event.ID {
				t.Error("two readings of one event have different ids")
			}
			if err := h.event.CheckTexts(); err != nil {
				t.Error(err)
			}
			c := h.event.Callback
			if c.Bucket == "" || c.Object == "" || len(c.Object) > maxKey || c.Size != nil && *c.Size < 0 ||
				h.event.Source != event.SourceNotification {
				t.Errorf("read %+v", h.event)
			}
			for name, value := range h.vars {
				if !callbackspec.Storable(name) || !callbackspec.Storable(value) {
					t.Errorf("variable %q is %q", name, value)
				}
			}
		}
	})
}

// FuzzXML compares the reader of XML with encoding/xml's own: what it accepts means the same there.
func FuzzXML(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		elements, err := readXML(body)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("%v is not the sentinel", err)
			}
			return
		}
		var n struct{ TopicName, Message string } // not wrapped, which wants the namespace that it writes
		if err := xml.Unmarshal(body, &n); err != nil {
			t.Fatalf("encoding/xml refuses what was read: %v", err)
		}
		if n.Message != elements["Message"] || n.TopicName != elements["TopicName"] {
			t.Errorf("read %q, encoding/xml %+v", elements, n)
		}
	})
}

// FuzzTopics checks that a list of topics is read as it is written, or refused.
func FuzzTopics(f *testing.F) {
	f.Add("1321669497458181/oss-events,2/b")
	f.Add("/a,1/,1")
	f.Fuzz(func(t *testing.T, list string) {
		topics, err := ParseTopics(strings.Split(list, ","))
		if err != nil {
			return
		}
		var again []string
		for _, topic := range topics {
			again = append(again, topic.Owner+"/"+topic.Name)
		}
		if second, err := ParseTopics(again); err != nil || !slices.Equal(second, topics) {
			t.Errorf("%q was read as %q, and that as %q, %v", list, topics, second, err)
		}
	})
}

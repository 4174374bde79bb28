package notify

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/recorder"
	"upcall/internal/uploadtoken"
)

// told is what the store gets of u if nothing but its members is known.
func told(u upload) *event.Event {
	return &event.Event{
		ID:         event.RecoveredID(event.SourceNotification, u.bucket, u.key, u.requestID, u.etag, u.at),
		ReceivedAt: u.at, Source: event.SourceNotification, SourceAddr: netip.MustParseAddr("127.0.0.1"),
		Callback: callbackspec.Callback{
			Bucket: u.bucket, Object: u.key, ETag: u.etag, Size: new(u.size), ClientIP: netip.MustParseAddr("203.0.113.7"),
			RequestID: u.requestID, Operation: strings.SplitN(u.name, ":", 2)[1],
		},
	}
}

var compared = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

// bridge sends an event as EventBridge does.
func bridge(body string) *push {
	p := pushed(body)
	p.after = func(r *http.Request) {
		r.Header = http.Header{"Content-Type": {"application/json"}, "X-Eventbridge-Signature-Token": {testToken},
			"X-Eventbridge-Signature-Timestamp": {"1"}}
	}
	return p
}

func cloudEvent(u upload) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"acs.oss","type":"oss:%s","subject":"acs:oss:cn-hangzhou:1:demo/a",`+
		`"time":%q,"aliyunregionid":"cn-hangzhou","datacontenttype":"application/json","data":%s}`,
		u.requestID, u.name, u.at.Format(time.RFC3339Nano), u.event())
}

// TestFormats sends one event in every form in which MNS and EventBridge may.
func TestFormats(t *testing.T) {
	t.Parallel()
	u := put(`a/ü "<&>.txt`)
	u.vars = map[string]string{"x:uid": "7", "x:note": "a & b"}
	u = u.mint(t, nil)
	want := told(u)
	want.UploadID = uuid.NullUUID{UUID: uploadID, Valid: true}
	want.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"7"`), "note": json.RawMessage(`"a & b"`)}
	plain := message(u)
	inside := `{"events":[` + u.eventWith(false) + `]}`
	both := u
	both.more = `,"xVars":{}`
	named := func(p *push) *push {
		return p.set("X-Mns-Topic-Name", ourOwn.Name).set("X-Mns-Topic-Owner", ourOwn.Owner)
	}
	lean := cloudEvent(u)
	for _, member := range []string{`"eventName":"ObjectCreated:PutObject",`, `"eventTime":"2026-11-22T11:59:00.000Z",`} {
		lean = strings.Replace(lean, member, "", 1)
	}
	for name, p := range map[string]*push{
		"SIMPLIFIED":                   pushed(plain),
		"SIMPLIFIED, Base64":           pushed(inBase64(plain)),
		"SIMPLIFIED, Base64, line":     pushed(inBase64(plain) + "\r\n"),
		"SIMPLIFIED, blanks":           pushed(" \n" + plain + "\n"),
		"XML":                          asXML(t, ourOwn, plain),
		"XML, Base64":                  asXML(t, ourOwn, inBase64(plain)),
		"XML, Base64, indented":        asXML(t, ourOwn, "\n  "+inBase64(plain)+"\n"),
		"XML, byte order mark":         asXML(t, ourOwn, inBase64(plain)).replace("<?xml", "\ufeff<?xml"),
		"XML, CDATA":                   asXML(t, ourOwn, "MESSAGE").replace("MESSAGE", "<![CDATA["+plain+"]]>"),
		"XML, topic in headers, too":   named(asXML(t, ourOwn, plain)),
		"XML, all in headers":          named(asXML(t, foreign, plain)).set("X-Mns-Message-Id", "1"),
		"JSON":                         asJSON(t, ourOwn, plain),
		"JSON, Base64":                 asJSON(t, ourOwn, inBase64(plain)),
		"xVars inside oss":             pushed(inside),
		"xVars at both places":         pushed(strings.Replace(inside, `,"region":`, `,"xVars":`+encoded(u.vars)+`,"region":`, 1)),
		"xVars empty at one place":     pushed(strings.Replace(inside, `,"region":`, `,"xVars":{},"region":`, 1)),
		"xVars null at one place":      pushed(strings.Replace(inside, `,"region":`, `,"xVars":null,"region":`, 1)),
		"small MD5":                    pushed(plain).set("Content-Md5", "small"),
		"ETag in quotes":               pushed(strings.Replace(plain, `"eTag":"`, `"eTag":"\"`, 1)).replace(u.etag, u.etag+`\"`),
		"time of another zone":         pushed(strings.Replace(plain, "T11:59:00.000Z", "T19:59:00+08:00", 1)),
		"members unheard of":           pushed(strings.Replace(plain, `"ruleId"`, `"position":{"a":[null,1.5]},"ruleId"`, 1)),
		"EventBridge":                  bridge(cloudEvent(u)),
		"EventBridge, lean data":       bridge(lean),
		"EventBridge, published later": bridge(strings.Replace(cloudEvent(u), `"time":"2026-11-22T11:59:00Z"`, `"time":"2026-11-22T12:00:00Z"`, 1)),
		"EventBridge, batch":           bridge("[" + cloudEvent(u) + "]"),
		"EventBridge, through MNS":     pushed(inBase64(cloudEvent(u))),
		"what OSS sends, with a token": bridge(plain),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil)
			if p.header.Get("Content-Md5") == "small" {
				p.header.Set("Content-Md5", md5Of(p.body))
			}
			if status, code := s.send(t, p); status != 204 || s.counts(t) != "recorded=1" {
				t.Fatalf("answered %d %s, counted %s\n%s", status, code, s.counts(t), s.log)
			}
			if diff := cmp.Diff([]*event.Event{want}, s.events, compared); diff != "" {
				t.Error(diff)
			}
			if len(s.refused) > 0 {
				t.Errorf("kept %v", s.refused)
			}
			if log := s.log.String(); strings.Contains(log, u.vars[callbackspec.TokenVar]) || !strings.Contains(log, "recorded") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

// TestKinds sends one message with an event of each kind.
func TestKinds(t *testing.T) {
	t.Parallel()
	var uploads []upload
	for i, name := range []string{
		"ObjectCreated:PutObject", "ObjectCreated:PostObject", "ObjectCreated:CompleteMultipartUpload",
		"ObjectRemoved:DeleteObject", "ObjectRemoved:DeleteObjects",
		// Of these no callback tells, or nothing is gone.
		"ObjectCreated:UploadPart", "ObjectCreated:UploadPartCopy", "ObjectCreated:InitiateMultipartUpload", "ObjectCreated:CopyObject",
		"ObjectCreated:AppendObject", "ObjectRemoved:AbortMultipartUpload", "ObjectDownloaded:GetObject",
		"ObjectReplication:ObjectCreated", "ObjectModified:UpdateObjectMeta", "PutObject", "objectcreated:putobject", "",
	} {
		u := put(fmt.Sprint(i))
		u.name = name
		uploads = append(uploads, u)
	}
	s := serve(t, nil)
	if status, _ := s.send(t, pushed(message(uploads...))); status != 204 {
		t.Errorf("answered %d", status)
	}
	if got, want := s.counts(t), "ignored=12 recorded=5"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
	got := map[string]string{}
	for _, e := range s.events {
		got[e.Callback.Object] = e.Callback.Operation
		if removed := strings.HasPrefix(e.Callback.Operation, "Delete"); removed != (e.Callback.Size == nil) {
			t.Errorf("%s has size %v", e.Callback.Operation, e.Callback.Size)
		}
	}
	want := map[string]string{
		"0": "PutObject", "1": "PostObject", "2": "CompleteMultipartUpload", "3": "DeleteObject", "4": "DeleteObjects",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	other := strings.Replace(cloudEvent(put("a")), `"oss:O`, `"ecs:O`, 1)
	for _, body := range []string{`{"events":[]}`, cloudEvent(upload{name: "x"}), other, "[]"} {
		if status, _ := s.send(t, bridge(body)); status != 204 {
			t.Errorf("%s: answered %d", body, status)
		}
	}
	if len(s.events) != 5 {
		t.Errorf("%d events", len(s.events))
	}
}

// TestRepeats checks that a message makes one event, however often it comes and in whichever
// format, and that nothing else does: an upload by the same URL, the removal of several objects.
func TestRepeats(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	a, again, removed, other := put("a.txt"), put("a.txt"), put("a.txt"), put("b.txt")
	again.requestID = "5C9E2E4B61E5D16D23E9CEC7"
	removed.name, removed.requestID = "ObjectRemoved:DeleteObjects", "5C9E2E4B61E5D16D23E9CEC8"
	other.name, other.requestID = removed.name, removed.requestID
	unnamed, later := put("c.txt"), put("c.txt")
	unnamed.requestID, later.requestID = "", ""
	later.at = later.at.Add(time.Millisecond)
	for _, p := range []*push{
		pushed(message(a)), pushed(inBase64(message(a))), asXML(t, ourOwn, message(a)), bridge(cloudEvent(a)),
		pushed(message(a)).set("Date", noon.Add(14*time.Minute).Format(http.TimeFormat)),
		pushed(message(again)), pushed(message(removed, other)), pushed(message(other, removed)),
		pushed(message(unnamed)), pushed(message(later)), pushed(message(unnamed)),
	} {
		if status, code := s.send(t, p); status != 204 {
			t.Errorf("answered %d %s", status, code)
		}
	}
	if got, want := s.counts(t), "duplicate=7 recorded=6"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

// TestSpooled checks that what waits in the spool is acknowledged, and counted as such.
func TestSpooled(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.durable = recorder.InSpool
	if status, _ := s.send(t, pushed(message(put("a.txt")))); status != 204 || s.counts(t) != "spooled=1" {
		t.Errorf("answered %d, counted %s", status, s.counts(t))
	}
}

// TestTokens looks at what is recorded of upload id and variables: nothing that is not proven.
func TestTokens(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"x:uid": "7", "x:role": "user"}
	issued := func(change func(*uploadtoken.Claims)) upload {
		u := put("a.txt")
		u.vars = vars
		return u.mint(t, change)
	}
	custom := func(body string) func(*uploadtoken.Claims) {
		return func(c *uploadtoken.Claims) {
			template := callbackspec.Parameter{URLs: []string{"https://up.example/cb"}, Body: body}
			terms, err := template.Terms(callbackspec.Vars{"x:uid": "7", "x:role": "user"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.Terms = uploadtoken.Terms(terms)
		}
	}
	without := put("a.txt")
	without.vars = vars
	forged := put("a.txt")
	forged.vars = map[string]string{callbackspec.TokenVar: "x"}
	const all, none = `{"role":"user","uid":"7"}`, `{}`
	for name, test := range map[string]struct {
		upload upload
		policy admission.TokenPolicy
		known  bool // the upload ID
		vars   string
	}{
		"default template":            {issued(nil), "", true, all},
		"and its size":                {issued(func(c *uploadtoken.Claims) { c.Size = new(int64(15)) }), "", true, all},
		"and a type that is not told": {issued(func(c *uploadtoken.Claims) { c.ContentType = "image/png" }), "", true, all},
		"several queries":             {issued(func(c *uploadtoken.Claims) { c.Queries = [][]byte{[]byte("a"), []byte("b")} }), "", true, all},
		"all under their own names":   {issued(custom("bucket=${bucket}&k=${object}&uid=${x:uid}&role=${x:role}")), "", true, all},
		"one under another name":      {issued(custom("bucket=${bucket}&uid=${x:uid}&r=${x:role}")), "", true, none},
		"valid until after it":        {issued(func(c *uploadtoken.Claims) { c.Expires = noon.Add(-59 * time.Second) }), "", true, all},
		"no token":                    {without, "", false, none},
		"no variables":                {put("a.txt"), "", false, none},
		"no token, none needed":       {without, admission.TokenOptional, false, all},
		"a token, none needed":        {issued(nil), admission.TokenOptional, true, all},
		"tokens ignored":              {forged, admission.TokenOff, false, none},
		"tokens ignored, variables":   {without, admission.TokenOff, false, all},
	} {
		s := serve(t, func(cfg *Config) { cfg.Admission.TokenPolicy = test.policy })
		if status, code := s.send(t, pushed(message(test.upload))); status != 204 || len(s.events) != 1 {
			t.Errorf("%s: answered %d %s", name, status, code)
			continue
		}
		e := s.events[0]
		got, err := event.AppendVars(nil, e.Callback.Vars)
		if err != nil || string(got) != test.vars || e.UploadID.Valid != test.known || test.known && e.UploadID.UUID != uploadID {
			t.Errorf("%s: %v, upload %v with variables %s, want %t, %s", name, err, e.UploadID, got, test.known, test.vars)
		}
	}
	s := serve(t, func(cfg *Config) { cfg.Admission.TokenPolicy = admission.TokenOptional })
	if status, code := s.send(t, pushed(message(forged))); status != 403 || code != "bad_token" {
		t.Errorf("a forged token where none is needed: answered %d %s", status, code)
	}
}

// TestConfig checks that all mistakes are reported at once, and when notifications are on.
func TestConfig(t *testing.T) {
	t.Parallel()
	_, topics := ParseTopics([]string{"oss-events", "1/", "x/a", "1/a b", "1/a/b", "1/a", " 1/a", ""})
	_, wrong := New(Config{Path: "/a?b", Token: "short"})
	for _, text := range []string{
		`"oss-events" does not begin with the number`, `"1/" does not end with the name`, `"x/a" does not begin`, `"1/a b" does not end`,
		`"1/a/b" does not end`, `1/a is there twice`, `"/a?b" is not a plain path`, "shorter than 16 bytes",
	} {
		if !strings.Contains(fmt.Sprint(topics, wrong), text) {
			t.Errorf("no mistake says %s", text)
		}
	}
	got, err := ParseTopics([]string{"1321669497458181/oss-events", " 2/B_c", ""})
	if err != nil || !cmp.Equal(got, []Topic{ourOwn, {"2", "B_c"}}) {
		t.Errorf("got %v, %v", got, err)
	}
	for pattern, refused := range map[string]bool{
		"/oss/notify": true, "/oss/:session": true, "/oss/*": true, "/*": true, "/oss/callback": false, "/oss/:session/:key": false,
	} {
		cfg := Config{Path: "/oss/notify", Topics: []Topic{ourOwn}, Admission: admission.Config{CallbackPaths: []string{"/x", pattern}}}
		if err := cfg.Check(); (err != nil) != refused || refused && !strings.Contains(err.Error(), "is the path of callbacks") {
			t.Errorf("beside callbacks to %s: %v", pattern, err)
		}
		cfg.Topics = nil
		if err := cfg.Check(); err != nil {
			t.Errorf("off, beside callbacks to %s: %v", pattern, err)
		}
	}
	for _, path := range []string{"/oss/:id", "/oss/*", "oss", "/o%20"} {
		if err := (Config{Path: path}).Check(); err == nil {
			t.Errorf("path %s passes", path)
		}
	}
	if (Config{}).On() || !(Config{Topics: []Topic{ourOwn}}).On() || !(Config{Token: testToken}).On() {
		t.Error("notifications are on or off when they should not be")
	}
}

package notify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/uploadtoken"
)

// TestRefusals sends what must make no event, and looks at the answer, the reason in the metrics
// and in the row that is kept.
func TestRefusals(t *testing.T) {
	t.Parallel()
	issued := func(change func(*uploadtoken.Claims)) upload {
		u := put("a.txt")
		u.vars = map[string]string{"x:uid": "7"}
		return u.mint(t, change)
	}
	good := issued(nil)
	changed := func(change func(*upload)) *push {
		u := good
		change(&u)
		return pushed(message(u))
	}
	signedFor := func(change func(*upload)) *push { // and its token is that of a.txt
		u := put("a.txt")
		change(&u)
		if u.vars == nil {
			u.vars = good.vars
		}
		return pushed(message(u))
	}
	after := func(p *push, f func(*http.Request)) *push { p.after = f; return p }
	genuine := func() *push { return pushed(message(good)) }
	// then changes a header that is signed.
	then := func(p *push, name string, values ...string) *push {
		return after(p, func(r *http.Request) {
			if r.Header[name] = values; len(values) == 0 {
				r.Header.Del(name)
			}
		})
	}
	keyAt := func(url string) *push { return then(genuine(), "X-Mns-Signing-Cert-Url", inBase64(url)) }
	date := func(off time.Duration) string { return noon.Add(off).Format(http.TimeFormat) }
	vars := func(more map[string]string) *push { // with the token of other variables
		return signedFor(func(u *upload) {
			u.vars = map[string]string{callbackspec.TokenVar: good.vars[callbackspec.TokenVar]}
			maps.Copy(u.vars, more)
		})
	}
	minted := func(change func(*uploadtoken.Claims)) *push { return pushed(message(issued(change))) }
	bridge := func(token ...string) *push {
		return after(pushed(message(good)), func(r *http.Request) {
			r.Header.Set("X-Eventbridge-Signature-Url", "https://cn-hangzhou-eventbridge.oss-accelerate.aliyuncs.com/x.pem")
			for _, value := range token {
				r.Header.Add("X-Eventbridge-Signature-Token", value)
			}
		})
	}
	late := uploadtoken.Claims{Expires: noon.Add(-time.Minute)} // of the upload, which is not before it
	longText := strings.Repeat("a", 300)
	for name, test := range map[string]struct {
		push   *push
		status int
		code   string
		reason string
	}{
		// What anyone can send.
		"no signature":       {then(genuine(), "Authorization"), 403, "bad_signature", "signature_missing"},
		"forged signature":   {then(genuine(), "Authorization", strings.Repeat("A", 86)+"=="), 403, "bad_signature", "signature_padding"},
		"key of a forger":    {keyAt("http://evil.example/x"), 403, "untrusted_key", "cert_url_untrusted"},
		"named key of MNS":   {keyAt("https://mnstest.oss-cn-hangzhou.aliyuncs.com/x.pem"), 403, "bad_signature", "signature_padding"},
		"get":                {after(genuine(), func(r *http.Request) { r.Method = http.MethodGet }), 405, "method_not_allowed", "method"},
		"compressed":         {then(genuine(), "Content-Encoding", "gzip"), 415, "unsupported_type", "content_encoding"},
		"too large":          {pushed(strings.Repeat(" ", MaxBody+1)), 413, "too_large", "body"},
		"too large, chunked": {after(pushed(strings.Repeat(" ", MaxBody+1)), func(r *http.Request) { r.ContentLength = -1 }), 413, "too_large", "body"},
		"too many headers":   {then(genuine(), "X-Long", strings.Repeat("a", admission.MaxHeaders)), 413, "too_large", "headers"},

		// What has been recorded, and is sent again.
		"replayed":        {genuine().set("Date", date(-16*time.Minute)), 403, "bad_signature", "date_expired"},
		"from the future": {genuine().set("Date", date(16*time.Minute)), 403, "bad_signature", "date_expired"},
		"without date":    {genuine().set("Date"), 403, "bad_signature", "date_malformed"},
		"date renewed":    {then(genuine().set("Date", date(-time.Hour)), "Date", date(0)), 403, "bad_signature", "digest_mismatch"},
		"on another path": {after(genuine(), func(r *http.Request) { r.URL.RawQuery = "x" }), 403, "bad_signature", "digest_mismatch"},
		"with other body": {genuine().set("Content-Md5", "4CCBAD7AF2D23C2D00DDECCA59323A8C"), 403, "bad_signature", "body_mismatch"},
		"without MD5":     {genuine().set("Content-Md5"+"", ""), 403, "bad_signature", "body_mismatch"},
		"header repeated": {then(genuine(), "X-Mns-Topic-Name", ourOwn.Name, "b"), 403, "bad_signature", "signed_header"},

		// What MNS has signed for someone else.
		"foreign topic":            {genuine().set("X-Mns-Topic-Name", foreign.Name), 403, "bad_signature", "topic_foreign"},
		"foreign owner":            {genuine().set("X-Mns-Topic-Owner", "2"), 403, "bad_signature", "topic_foreign"},
		"name in other case":       {genuine().set("X-Mns-Topic-Name", "OSS-events"), 403, "bad_signature", "topic_foreign"},
		"owner alone":              {genuine().set("X-Mns-Topic-Name"), 403, "bad_signature", "topic_missing"},
		"name alone":               {genuine().set("X-Mns-Topic-Owner"), 403, "bad_signature", "topic_missing"},
		"no topic":                 {genuine().set("X-Mns-Topic-Name").set("X-Mns-Topic-Owner"), 403, "bad_signature", "topic_missing"},
		"mixed topics":             {genuine().set("X-Mns-Topic-Name", "x"), 403, "bad_signature", "topic_foreign"},
		"foreign XML":              {asXML(t, foreign, message(good)), 403, "bad_signature", "topic_foreign"},
		"foreign JSON":             {asJSON(t, foreign, message(good)), 403, "bad_signature", "topic_foreign"},
		"foreign, with our XML":    {asXML(t, ourOwn, message(good)).set("X-Mns-Topic-Name", "b").set("X-Mns-Topic-Owner", "1"), 403, "bad_signature", "topic_foreign"},
		"XML without topic":        {asXML(t, Topic{}, message(good)), 403, "bad_signature", "topic_missing"},
		"published to look like X": {asXML(t, ourOwn, message(good)).set("X-Mns-Message-Id", "1"), 403, "bad_signature", "topic_missing"},
		"published to look like J": {asJSON(t, ourOwn, message(good)).set("X-Mns-Message-Id", "1"), 403, "bad_signature", "topic_missing"},
		"published as plain text":  {asXML(t, ourOwn, message(good)).set("Content-Type", "text/plain;charset=utf-8"), 403, "bad_signature", "topic_missing"},

		// EventBridge, whose events are as good as its token.
		"bridge without token": {bridge(), 403, "bad_token", "bridge_token"},
		"bridge, empty token":  {bridge(""), 403, "bad_token", "bridge_token"},
		"bridge, wrong token":  {bridge(testToken + "x"), 403, "bad_token", "bridge_token"},
		"bridge, short token":  {bridge(testToken[:5]), 403, "bad_token", "bridge_token"},
		"bridge, right second": {bridge("x", testToken), 403, "bad_token", "bridge_token"},

		// What our topic has, and is not OSS's.
		"empty":              {pushed(""), 400, "malformed", "body"},
		"text":               {pushed("hello"), 400, "malformed", "body"},
		"Base64 of text":     {pushed(inBase64("hello")), 400, "malformed", "body"},
		"Base64 twice":       {pushed(inBase64(inBase64(message(good)))), 400, "malformed", "body"},
		"array of events":    {pushed("[" + good.event() + "]"), 400, "malformed", "body"},
		"one event":          {pushed(good.event()), 400, "malformed", "body"},
		"events twice":       {pushed(`{"events":[],"events":[` + good.event() + `]}`), 400, "malformed", "body"},
		"events no array":    {pushed(`{"events":{"0":` + good.event() + `}}`), 400, "malformed", "body"},
		"events null":        {pushed(`{"events":null}`), 400, "malformed", "body"},
		"event no object":    {pushed(`{"events":["` + "x" + `"]}`), 400, "malformed", "body"},
		"more after it":      {pushed(message(good) + "{}"), 400, "malformed", "body"},
		"not UTF-8":          {pushed(strings.Replace(message(good), "a.txt", "a\xff.txt", 1)), 400, "malformed", "body"},
		"NUL in the key":     {pushed(strings.Replace(message(good), "a.txt", `a\u0000.txt`, 1)), 400, "malformed", "body"},
		"half a surrogate":   {pushed(strings.Replace(message(good), "a.txt", `a\ud800.txt`, 1)), 400, "malformed", "body"},
		"key twice":          {pushed(strings.Replace(message(good), `"key":`, `"key":"b.txt","key":`, 1)), 400, "malformed", "body"},
		"key no text":        {pushed(strings.Replace(message(good), `"a.txt"`, `["a.txt"]`, 1)), 400, "malformed", "body"},
		"no key":             {changed(func(u *upload) { u.key = "" }), 400, "malformed", "body"},
		"long key":           {changed(func(u *upload) { u.key = strings.Repeat("a", 1024) }), 400, "malformed", "body"},
		"no bucket":          {changed(func(u *upload) { u.bucket = "" }), 400, "malformed", "body"},
		"long bucket":        {changed(func(u *upload) { u.bucket = longText }), 400, "malformed", "body"},
		"long ETag":          {changed(func(u *upload) { u.etag = longText }), 400, "malformed", "body"},
		"long request id":    {changed(func(u *upload) { u.requestID = longText }), 400, "malformed", "body"},
		"nothing to tell by": {changed(func(u *upload) { u.requestID, u.etag = "", `""` }), 400, "malformed", "body"},
		"no time":            {pushed(strings.Replace(message(good), `"eventTime"`, `"eventtime"`, 1)), 400, "malformed", "body"},
		"time without zone":  {pushed(strings.Replace(message(good), `.000Z`, ``, 1)), 400, "malformed", "body"},
		"negative size":      {changed(func(u *upload) { u.size = -1 }), 400, "malformed", "body"},
		"size with fraction": {pushed(strings.Replace(message(good), `"size":15`, `"size":1.5`, 1)), 400, "malformed", "body"},
		"two values": {changed(func(u *upload) { u.vars, u.more = nil, `,"xVars":{"x:a":"2"}` }).
			replace(`"ruleId":"r"`, `"ruleId":"r","xVars":{"x:a":"1"}`), 400, "malformed", "body"},
		"xVars no object":     {changed(func(u *upload) { u.vars, u.more = nil, `,"xVars":"x"` }), 400, "malformed", "body"},
		"XML of another root": {pushed("<A><Message>" + message(good) + "</Message></A>"), 400, "malformed", "body"},
		"XML cut off":         {pushed("<Notification><Message>" + message(good)), 400, "malformed", "body"},
		"XML nested":          {pushed("<Notification><Message><a>" + message(good) + "</a></Message></Notification>"), 400, "malformed", "body"},
		"XML element twice":   {pushed("<Notification><Message>x</Message><Message>" + message(good) + "</Message></Notification>"), 400, "malformed", "body"},
		"XML with two roots":  {pushed("<Notification></Notification><Notification><Message>" + message(good) + "</Message></Notification>"), 400, "malformed", "body"},
		"XML with an entity":  {pushed(`<!DOCTYPE a [<!ENTITY m "x">]><Notification><Message>&m;</Message></Notification>`), 400, "malformed", "body"},
		"XML empty":           {pushed("<Notification/>"), 400, "malformed", "body"},
		"event of the future": {changed(func(u *upload) { u.at = noon.Add(16 * time.Minute) }), 400, "malformed", "event_time"},

		// What OSS tells of, and we did not issue so.
		"other bucket":         {changed(func(u *upload) { u.bucket = "other" }), 403, "wrong_bucket", "bucket_not_allowed"},
		"removed from other":   {changed(func(u *upload) { u.bucket, u.name = "other", "ObjectRemoved:DeleteObject" }), 403, "wrong_bucket", "bucket_not_allowed"},
		"token of nobody":      {signedFor(func(u *upload) { u.vars = map[string]string{callbackspec.TokenVar: "k1.2.AAAA"} }), 403, "bad_token", "token_forged"},
		"token of other key":   {signedFor(func(u *upload) { u.key = "b.txt" }), 403, "bad_token", "token_foreign_key"},
		"token, other bucket":  {minted(func(c *uploadtoken.Claims) { c.Bucket = "more" }), 403, "bad_token", "token_foreign_bucket"},
		"token, other value":   {vars(map[string]string{"x:uid": "8"}), 403, "bad_token", "token_foreign_vars"},
		"token, variable gone": {vars(nil), 403, "bad_token", "token_foreign_vars"},
		"token, variable more": {vars(map[string]string{"x:uid": "7", "x:role": "admin"}), 403, "bad_token", "token_foreign_vars"},
		"token, other size":    {minted(func(c *uploadtoken.Claims) { c.Size = new(int64(16)) }), 403, "bad_token", "token_foreign_size"},
		"token, other type": {minted(func(c *uploadtoken.Claims) { c.ContentType = "image/png" }).
			replace(`"size":15`, `"size":15,"objectMeta":{"mimeType":"text/html"}`), 403, "bad_token", "token_foreign_type"},
		"token expired": {minted(func(c *uploadtoken.Claims) { c.Expires = late.Expires }), 403, "expired_token", "token_expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil)
			r := test.push.request(t, s.url)
			status, code := answer(t, r)
			if status != test.status || code != test.code {
				t.Errorf("answered %d %s, want %d %s", status, code, test.status, test.code)
			}
			if got, want := s.counts(t), "refused:"+test.reason+"=1"; got != want {
				t.Errorf("counted %q, want %q", got, want)
			}
			if len(s.events) > 0 {
				t.Errorf("recorded %v", s.events[0])
			}
			if len(s.refused) != 1 || s.refused[0].Reason != test.reason || s.refused[0].Digest == uuid.Nil ||
				!s.refused[0].At.Equal(noon) || !s.refused[0].Source.IsLoopback() {
				t.Errorf("kept %v", s.refused)
			}
			if log := s.log.String(); !strings.Contains(log, test.reason) || strings.Contains(log, testToken) {
				t.Errorf("log: %s", log)
			}
		})
	}
}

// replace changes the body before it is signed.
func (p *push) replace(old, with string) *push {
	if !strings.Contains(p.body, old) {
		panic("nothing to replace: " + old)
	}
	p.body = strings.Replace(p.body, old, with, 1)
	return p
}

// TestRefusalsTellWhatIsClaimed looks at the row of a refusal: repeats are one, and what was
// claimed is there even if nobody has signed it.
func TestRefusalsTellWhatIsClaimed(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	unsigned := func(r *http.Request) { r.Header.Del("Authorization") }
	for _, u := range []upload{put("a.txt"), put("a.txt"), put("b.txt")} {
		p := pushed(inBase64(message(u)))
		p.after = unsigned
		s.send(t, p)
	}
	issued := put("c.txt").mint(t, func(c *uploadtoken.Claims) { c.Expires = noon.Add(-time.Hour) })
	s.send(t, pushed(message(issued)))
	var got []string
	for _, r := range s.refused {
		got = append(got, fmt.Sprint(r.Bucket, " ", r.Object, " ", r.RequestID, " ", r.UploadID.Valid))
	}
	want := []string{"demo a.txt 5C9E2E4B61E5D16D23E9CEC6 false", "demo a.txt 5C9E2E4B61E5D16D23E9CEC6 false",
		"demo b.txt 5C9E2E4B61E5D16D23E9CEC6 false", "demo c.txt 5C9E2E4B61E5D16D23E9CEC6 true"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s.refused[0].Digest != s.refused[1].Digest || s.refused[0].Digest == s.refused[2].Digest {
		t.Error("the digest does not tell messages apart, or tells repeats apart")
	}
	if want := event.RecoveredID(event.SourceNotification, "demo", "c.txt", issued.requestID, "", noon); s.refused[3].Digest != want {
		t.Error("the digest of a refused event is not its id")
	}
}

// TestRefusedBesideOthers checks what is answered if an event of a message is not recorded. If it may be recorded later,
// the message must come again. Else the others are acknowledged: MNS would push all of them again.
func TestRefusedBesideOthers(t *testing.T) {
	t.Parallel()
	elsewhere, ahead := put("b.txt"), put("b.txt")
	elsewhere.bucket, ahead.at = "other", ahead.at.Add(time.Hour)
	expired := put("b.txt").mint(t, func(c *uploadtoken.Claims) { c.Expires = noon.Add(-time.Hour) })
	for name, test := range map[string]struct {
		bad    upload
		err    error
		reason string
		beside int // others
		alone  int
	}{
		"another bucket": {elsewhere, nil, "bucket_not_allowed", 204, 403},
		"of the future":  {ahead, nil, "event_time", 204, 400},
		"expired":        {expired, nil, "token_expired", 204, 403},
		"away":           {put("b.txt"), event.ErrUnavailable, "database", 503, 503},
		"spool full":     {put("b.txt"), fmt.Errorf("%w; %w", event.ErrUnavailable, event.ErrSpoolFull), "spool_full", 503, 503},
		"too late":       {put("b.txt"), context.DeadlineExceeded, "deadline", 503, 503},
		"a mistake":      {put("b.txt"), errors.New("x"), "internal", 503, 503},
		"revoked":        {put("b.txt"), event.ErrRevoked, "token_revoked", 204, 403},
		"overused":       {put("b.txt"), event.ErrOverused, "token_overused", 204, 403},
		"unstorable":     {put("b.txt"), event.ErrUnstorable, "not_storable", 204, 400},
		"dead letter":    {put("b.txt"), event.ErrDeadLetter, "not_storable", 204, 503},
	} {
		for others, want := range map[int]int{2: test.beside, 0: test.alone} {
			s := serve(t, nil)
			s.fail = func(e *event.Event) error {
				if e.Callback.Object == "b.txt" {
					return test.err
				}
				return nil
			}
			told := append([]upload{test.bad}, []upload{put("a.txt"), put("c.txt")}[:others]...)
			counted, again := fmt.Sprintf("refused:%s=1", test.reason), ""
			if others > 0 {
				counted, again = fmt.Sprintf("recorded=%d %s", others, counted), fmt.Sprintf("duplicate=%d ", others)
			}
			status, _ := s.send(t, pushed(message(told...)))
			if got := s.counts(t); status != want || got != counted || len(s.events) != others {
				t.Errorf("%s, %d others: answered %d, counted %q, want %d, %q", name, others, status, got, want, counted)
			}
			if len(s.refused) != 1 || s.refused[0].Reason != test.reason || !strings.Contains(s.log.String(), `"reason":"`+test.reason) {
				t.Errorf("%s, %d others: kept %v; log: %s", name, others, s.refused, s.log)
			}
			if test.err == nil || want == 204 {
				continue
			}
			// MNS pushes it again: what was recorded is not recorded twice.
			s.fail = nil
			status, _ = s.send(t, pushed(message(told...)))
			counted = fmt.Sprintf("%srecorded=%d refused:%s=1", again, others+1, test.reason)
			if got := s.counts(t); status != 204 || got != counted || len(s.events) != others+1 {
				t.Errorf("%s, %d others: then answered %d, counted %q, want %q; %d events",
					name, others, status, got, counted, len(s.events))
			}
		}
	}
	// "Not now" is answered rather than a refusal, because the message must come again.
	s := serve(t, nil)
	s.fail = func(e *event.Event) error {
		if e.Callback.Object == "c.txt" {
			return event.ErrUnavailable
		}
		return nil
	}
	told := []upload{put("a.txt"), elsewhere, put("c.txt"), expired}
	for range 2 {
		if status, code := s.send(t, pushed(message(told...))); status != 503 || code != "unavailable" || len(s.events) != 1 {
			t.Errorf("not now, and others refused: answered %d %s, %d events", status, code, len(s.events))
		}
		slices.Reverse(told)
	}
}

// TestPanic checks that a panic costs one answer, and nothing is acknowledged.
func TestPanic(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fail = func(*event.Event) error { panic("broken") }
	if status, _ := s.send(t, pushed(message(put("a.txt"), put("b.txt")))); status != 503 || s.counts(t) != "refused:panic=2" {
		t.Errorf("answered %d, %s", status, s.counts(t))
	}
}

// TestBridgeOff checks that without a token of the operator's, no token lets EventBridge in, an
// empty one neither; and that MNS needs a topic when EventBridge alone is on.
func TestBridgeOff(t *testing.T) {
	t.Parallel()
	s := serve(t, func(cfg *Config) { cfg.Token = "" })
	for _, values := range [][]string{nil, {""}, {"x"}} {
		p := pushed(message(put("a.txt")))
		p.after = func(r *http.Request) {
			r.Header["X-Eventbridge-Signature-Token"] = values
			r.Header.Set("X-Eventbridge-Signature-Version", "1.0")
		}
		if status, code := s.send(t, p); status != 403 || code != "bad_token" || len(s.events) > 0 {
			t.Errorf("token %q: answered %d %s", values, status, code)
		}
	}
	s = serve(t, func(cfg *Config) { cfg.Topics = nil })
	if status, code := s.send(t, pushed(message(put("a.txt")))); status != 403 || code != "bad_signature" || len(s.events) > 0 {
		t.Errorf("without topics: answered %d %s", status, code)
	}
}

package console

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"upcall/internal/hooks"
)

// TestPages looks at each page in both languages: it is there, has what it must have, and what others chose is text.
func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, who := range []string{w.viewer, w.operator} {
		p := w.person(t, who)
		for path, want := range w.paths() {
			for language, own := range map[string]string{"en": `lang="en"`, "zh-CN,zh;q=0.9,en;q=0.8": `lang="zh-CN"`} {
				got := p.do(t, http.MethodGet, path, nil, "Accept-Language", language)
				if got.status != http.StatusOK || !strings.Contains(got.text, want) || !strings.Contains(got.text, own) {
					t.Errorf("%s in %s: %d, without %q or %q\n%.3000s", path, language, got.status, want, own, got.text)
				}
				if strings.Contains(got.text, "<script>alert") || strings.Contains(got.text, "<b>no</b>") {
					t.Errorf("%s: a text became a tag", path)
				}
				if got.header.Get("Content-Security-Policy") != policy || got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: headers %v", path, got.header)
				}
				// The policy would have a browser ignore these.
				if inline := regexp.MustCompile(`(?i)<style|<script>|\sstyle=|\son[a-z]+=|https?://[^"<]*\.(js|css)`).FindString(got.text); inline != "" {
					t.Errorf("%s holds %q", path, inline)
				}
			}
		}
	}
}

// paths are the pages, with something that each must hold.
func (w *world) paths() map[string]string {
	return map[string]string{
		"":                              "partitions: 3 months ahead",
		"events":                        `data-src="/console/events/stream?`,
		"uploads/" + w.upload.String():  "5B9CDDCC0123456789ABCDEF",
		"uploads?q=uid%3D8&by=key":      "uid=8",
		"hooks":                         "98\u202f%",
		"hooks/" + w.hook.ID.String():   "the application answered 500",
		"refusals?reason=bad_signature": "192.0.2.1",
		"refusals":                      "a proxy stripped the beginning of the path",
		"refusals/" + w.captured:        "/api/AliYunOssCallback",
		"loss":                          "1\u202f234\u202f567",
		"spool":                         "database cannot hold this row",
	}
}

// TestCapturesUnreadable: without the directory of captures, the rows are shown, and what is wrong beside them.
func TestCapturesUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.captures.Close()
	got := w.person(t, w.viewer).get(t, "refusals?reason=bad_signature")
	if got.status != http.StatusOK || !strings.Contains(got.text, "192.0.2.1") || !strings.Contains(got.text, `role="alert"`) ||
		strings.Contains(got.text, "UPCALL_CAPTURE_REFUSED") {
		t.Errorf("%d %s", got.status, got.text)
	}
}

// TestLogIn holds who gets in, and what their browser keeps.
func TestLogIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stranger := w.person(t, "")
	for path := range w.paths() {
		if got := stranger.get(t, path); got.status != http.StatusSeeOther || got.header.Get("Location") != "/console/login" {
			t.Errorf("%s without a session: %d %v", path, got.status, got.header)
		}
	}
	for _, path := range []string{"hooks", "hooks/shop/remove", "spool/discard", "events/stream"} {
		if got := stranger.post(t, path, url.Values{"confirm": {"yes"}}); got.status != http.StatusSeeOther {
			t.Errorf("%s without a session: %d", path, got.status)
		}
	}
	for _, key := range []string{"", "x", strings.Replace(w.viewer, "_eve_", "_olga_", 1), strings.Repeat("x", 5<<10)} {
		if got := stranger.post(t, "login", url.Values{"key": {key}}); got.status != http.StatusUnauthorized || got.header.Get("Set-Cookie") != "" {
			t.Errorf("key of %d bytes: %d", len(key), got.status)
		}
	}
	got := stranger.post(t, "login", url.Values{"key": {w.viewer}})
	cookie := got.header.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/console/", "Max-Age=43200"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie %q lacks %s", cookie, part)
		}
	}
	if strings.Contains(cookie, w.viewer) || strings.Contains(cookie, "Secure") {
		t.Errorf("the cookie: %q", cookie)
	}
	secure := w.person(t, "").do(t, http.MethodPost, "login", url.Values{"key": {w.viewer}}, "X-Forwarded-Proto", "https")
	if !strings.Contains(secure.header.Get("Set-Cookie"), "; Secure") {
		t.Errorf("behind TLS: %q", secure.header.Get("Set-Cookie"))
	}
	if text := w.logs.String(); strings.Contains(text, w.viewer) || !strings.Contains(text, "console: logged in") {
		t.Errorf("the log: %s", text)
	}
	// Logging out ends the session, not only the cookie.
	sent := strings.TrimSuffix(strings.SplitN(cookie, ";", 2)[0], ";")
	stranger.post(t, "logout", url.Values{})
	if got := w.person(t, "").do(t, http.MethodGet, "", nil, "Cookie", sent); got.status != http.StatusSeeOther {
		t.Errorf("after logging out: %d", got.status)
	}
}

// TestSessionsEnd: with their time, with the key, and if there are too many.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person(t, w.operator)
	now := time.Now()
	w.console.sessions.now = func() time.Time { return now }
	now = now.Add(sessionTime - time.Minute)
	if got := p.get(t, ""); got.status != http.StatusOK {
		t.Errorf("before the time is over: %d", got.status)
	}
	now = now.Add(2 * time.Minute)
	if got := p.get(t, ""); got.status != http.StatusSeeOther {
		t.Errorf("after it: %d", got.status)
	}
	p, viewer := w.person(t, w.operator), w.person(t, w.viewer)
	w.exec(t, "UPDATE upcall.api_keys SET revoked_at = now() WHERE id = 'olga'")
	deadline := time.Now().Add(time.Minute)
	for p.get(t, "").status != http.StatusSeeOther {
		if time.Now().After(deadline) {
			t.Fatal("a revoked key still shows pages")
		}
		time.Sleep(50 * time.Millisecond)
	}
	for range mostSessions {
		now = now.Add(time.Second)
		w.console.sessions.begin(discard{}, new(http.Request), viewer.caller(t))
	}
	if len(w.console.sessions.all) != mostSessions {
		t.Errorf("%d sessions", len(w.console.sessions.all))
	}
	if got := viewer.get(t, ""); got.status != http.StatusSeeOther {
		t.Errorf("the oldest session is still there: %d", got.status)
	}
}

// TestOutage: while the keys cannot be read, an operator who has logged in before sees pages, and can change nothing.
func TestOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.person(t, w.operator)
	w.pool.Close()
	deadline := time.Now().Add(time.Minute)
	for {
		health, act := p.get(t, ""), p.post(t, "spool/discard", url.Values{"confirm": {"yes"}})
		if health.status != http.StatusOK {
			t.Fatalf("health: %d %s", health.status, health.text)
		}
		if act.status == http.StatusForbidden {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("discard: %d", act.status)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// An acting is an act with its form, and how to see whether it was done.
type acting struct {
	path string
	form url.Values
	asks bool
	want string // on the page that answers, or in Location
	done func(hooks.Endpoint, *world) bool
}

func (w *world) actings() []acting {
	hook := "hooks/" + w.hook.ID.String()
	name := url.Values{"name": {"shop"}}
	return []acting{
		{"hooks", url.Values{"url": {w.hook.URL + "2"}, "name": {"another"}, "bucket": {"photos"}}, false, "whsec_",
			func(_ hooks.Endpoint, w *world) bool {
				return w.count("SELECT count(*) FROM upcall.hook_endpoints") == 2
			}},
		{hook + "/test", name, false, "204", func(_ hooks.Endpoint, w *world) bool { return len(w.sent) == 1 }},
		{hook + "/pause", name, true, "", func(e hooks.Endpoint, _ *world) bool { return e.State == hooks.Paused }},
		{hook + "/resume", name, false, "", func(e hooks.Endpoint, _ *world) bool { return e.State == hooks.Active }},
		{hook + "/rotate", url.Values{"keep": {"1h"}}, true, "whsec_", func(e hooks.Endpoint, _ *world) bool { return !e.RotatedUntil.IsZero() }},
		{hook + "/redeliver", url.Values{"event": {""}}, true, "0", func(hooks.Endpoint, *world) bool { return true }},
		{"spool/retry", url.Values{"event": {w.letter()}}, false, "/console/spool", func(_ hooks.Endpoint, w *world) bool { return w.spool.Stats().DeadLetters == 2 }},
		{"spool/discard", url.Values{}, true, "/console/spool", func(_ hooks.Endpoint, w *world) bool { return w.spool.Stats().DeadLetters == 0 }},
		{hook + "/remove", name, true, "/console/hooks", func(_ hooks.Endpoint, w *world) bool {
			return w.count("SELECT count(*) FROM upcall.hook_endpoints") == 1
		}},
	}
}

// TestActs has an operator do everything, each harmful act only after a yes, and refuses a viewer, and a page of another site, all
// of it.
func TestActs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator, viewer := w.person(t, w.operator), w.person(t, w.viewer)
	before := w.state(t)
	yes := func(form url.Values) url.Values {
		with := url.Values{"confirm": {"yes"}}
		for name, values := range form {
			with[name] = values
		}
		return with
	}
	for _, a := range w.actings() {
		if got := viewer.post(t, a.path, yes(a.form)); got.status != http.StatusForbidden {
			t.Errorf("%s by a viewer: %d %s", a.path, got.status, got.text)
		}
		for _, other := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://example.org"}} {
			if got := operator.do(t, http.MethodPost, a.path, yes(a.form), other...); got.status != http.StatusForbidden {
				t.Errorf("%s from a page of another site, %v: %d", a.path, other, got.status)
			}
		}
	}
	if after := w.state(t); after != before {
		t.Fatalf("what was refused changed something:\n%s\n%s", before, after)
	}
	if page := viewer.get(t, "hooks/"+w.hook.ID.String()).text; strings.Contains(page, `method="post" action="/console/hooks/`) {
		t.Error("a viewer is shown acts")
	}
	for _, a := range w.actings() {
		form := a.form
		if a.asks {
			before := w.state(t)
			got := operator.post(t, a.path, form)
			if got.status != http.StatusOK || !strings.Contains(got.text, `name="confirm" value="yes"`) || w.state(t) != before {
				t.Errorf("%s was not asked about: %d %s", a.path, got.status, got.text)
			}
			form = yes(form)
		}
		got := operator.post(t, a.path, form)
		if got.status != http.StatusOK && got.status != http.StatusSeeOther || !strings.Contains(got.text+got.header.Get("Location"), a.want) {
			t.Errorf("%s: %d %s", a.path, got.status, got.text)
		}
		e, _ := w.endpoints.Get(t.Context(), "shop")
		if !a.done(e, w) {
			t.Errorf("%s did nothing: %+v", a.path, e)
		}
	}
	for _, path := range []string{"hooks/shop/explode", "spool/explode", "nothing"} {
		if got := operator.post(t, path, yes(nil)); got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if got := operator.post(t, "hooks", url.Values{"url": {"ftp://x"}}); got.status != http.StatusBadRequest || !strings.Contains(got.text, "https") {
		t.Errorf("a wrong endpoint: %d %s", got.status, got.text)
	}
}

// TestTranslated holds that every text of the templates has a translation, and that there is none of another text.
func TestTranslated(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(templates, "pages/*.html")
	if err != nil || len(names) < 10 {
		t.Fatalf("%d templates, %v", len(names), err)
	}
	literal := regexp.MustCompile(`[({]t "([^"]*)"`)
	for _, name := range names {
		text, err := templates.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range literal.FindAllStringSubmatch(string(text), -1) {
			if chinese[found[1]] == "" {
				t.Errorf("%s: %q has no translation", name, found[1])
			}
		}
	}
	for _, acts := range []map[string]act{hookActs, spoolActs} {
		for name, a := range acts {
			if chinese[a.label] == "" || a.asks != "" && chinese[a.asks] == "" {
				t.Errorf("%s has no translation", name)
			}
		}
	}
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"": "en", "zh": "zh", "zh-TW": "zh", "de": "en", "de,zh;q=0.5": "zh", "zh;q=0.2,en-GB;q=0.9": "en", "zh;q=0": "en", "ZH-cn": "zh",
		";;;,=,q=": "en", "en;q=x,zh": "zh",
	} {
		if got := languageOf(header); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{"0": "0", "999": "999", "1000": "1\u202f000", "1234567": "1\u202f234\u202f567", "0.5": "0.5", "-1234": "-1\u202f234"} {
		if got := number(json.Number(value)); got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
	if number(nil) != none || size(nil) != none || share(nil) != none || moment(nil) != none || moment("0001-01-01T00:00:00Z") != none {
		t.Error("null is not shown as a dash")
	}
}

package receiver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/hooks"
	"upcall/internal/intake"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
	"upcall/internal/uploadtoken"
	"upcall/internal/webhook"
)

// An asked application keeps the bodies of what it was sent, by path, and answers with JSON.
type askedApp struct {
	*httptest.Server
	secret webhook.Secret
	mu     sync.Mutex
	bodies map[string][]string
}

func newAskedApp(t *testing.T) *askedApp {
	t.Helper()
	a := &askedApp{secret: webhook.NewSecret(), bodies: make(map[string][]string)}
	w, err := standardwebhooks.NewWebhook(a.secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	a.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := w.Verify(body, r.Header); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		a.bodies[r.URL.Path] = append(a.bodies[r.URL.Path], r.Header.Get("webhook-id")+" "+string(body))
		n := len(a.bodies[r.URL.Path])
		a.mu.Unlock()
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
		fmt.Fprintf(rw, `{"asked":%d,"object":"<b>"}`, n)
	}))
	t.Cleanup(a.Close)
	return a
}

// at returns what came to a path.
func (a *askedApp) at(path string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bodies[path]
}

// TestReplyReachesTheUploader goes through the whole loop: an upload to the emulator is answered
// with the application's JSON. What the application was asked is what a hook delivers.
func TestReplyReachesTheUploader(t *testing.T) {
	t.Parallel()
	app, emulator := newAskedApp(t), ossfake.Start(t)
	for _, replace := range []bool{false, true} {
		receiver := start(t, Config{DatabaseURL: dbtest.URL(t), TrustKeyURLs: []string{emulator + ossemu.PublicKeyPath},
			Reply: &ReplyConfig{URL: app.URL + fmt.Sprint("/reply-", replace), Secret: app.secret, Timeout: 3 * time.Second, Replace: replace},
			Hooks: HooksConfig{Rules: hooks.Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
				Declared: []hooks.Declared{{Settings: hooks.Settings{Name: "app", URL: app.URL + fmt.Sprint("/hook-", replace)}, Secret: app.secret}}}})
		status, answer := put(t, emulator, receiver.Public+"/oss/callback")
		want := `"durable":"postgres","reply":{"asked":1,"object":"<b>"}}`
		if replace {
			want = `{"asked":1,"object":"<b>"}`
		}
		if status != http.StatusOK || !strings.HasSuffix(answer, want) || replace && answer != want || !json.Valid([]byte(answer)) {
			t.Errorf("replace %v: the uploader sees %d %s", replace, status, answer)
		}
		wait.Until(t, "the hook is delivered", func() bool { return len(app.at(fmt.Sprint("/hook-", replace))) == 1 })
		if asked, told := app.at(fmt.Sprint("/reply-", replace)), app.at(fmt.Sprint("/hook-", replace)); len(asked) != 1 || asked[0] != told[0] {
			t.Errorf("asked %q, and delivered %q", asked, told)
		}
		if got := receiver.Metric(t, `upcall_reply_calls_total{outcome="replied"}`); got != 1 {
			t.Errorf("%v calls", got)
		}
	}
}

// put uploads to the emulator with a callback.
func put(t *testing.T, emulator, callbackURL string) (status int, answer string) {
	t.Helper()
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: emulator, AccessKeyID: ossfake.AccessKeyID,
		AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := uploadtoken.ParseKeys("k1:0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := issue.New(issue.Config{OSS: client, Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	upload, _, err := issuer.Issue(t.Context(), issue.Request{Object: oss.Object{Bucket: ossfake.Bucket, Key: "a.txt"}, Expires: time.Hour,
		Callback: &issue.CallbackSpec{URLs: []string{callbackURL}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), upload.Method, upload.URL, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range upload.Headers {
		r.Header.Set(name, value)
	}
	return servetest.Do(t, r)
}

// TestReplyOfRepeatsAndSpooled holds that the application is asked about these, too, and about
// a repeat as it was the first time.
func TestReplyOfRepeatsAndSpooled(t *testing.T) {
	t.Parallel()
	app, keyURL := newAskedApp(t), ossfake.KeyURL(t)
	gate, through := newStall(t, dbtest.URL(t))
	receiver := start(t, Config{DatabaseURL: through + "&connect_timeout=5", TrustKeyURLs: []string{keyURL}, SpoolDir: t.TempDir(),
		SpoolMinFreeBytes: -1, Reply: &ReplyConfig{URL: app.URL + "/reply", Secret: app.secret, Timeout: 1500 * time.Millisecond}})
	wait.Until(t, "a callback is recorded", func() bool {
		return strings.Contains(call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId=1").body, `"postgres"`)
	})
	first := app.at("/reply")
	got := call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=a&reqId=1")
	asked := app.at("/reply")
	if got.code != 200 || !strings.Contains(got.body, `"duplicate":true,"durable":"postgres","reply":{"asked":`) ||
		len(asked) != len(first)+1 || asked[len(asked)-1] != first[0] {
		t.Errorf("the repeat got %d %s; asked\n%s", got.code, got.body, strings.Join(asked, "\n"))
	}
	gate.Lock()
	defer gate.Unlock()
	got = call(http.DefaultClient, receiver.Public, keyURL, "bucket=demo&object=b&reqId=2")
	if !got.late() && (got.code != 200 || !strings.Contains(got.body, `"durable":"spool","reply":{"asked":`)) {
		t.Errorf("spooled: %d %s", got.code, got.body)
	}
}

// TestHangingReply holds that an application that hangs costs an upload nothing but time, and
// less than OSS waits, after a slow commit, too.
func TestHangingReply(t *testing.T) {
	t.Parallel()
	app, keyURL, databaseURL := newAskedApp(t), ossfake.KeyURL(t), dbtest.URL(t)
	pool := dbtest.Open(t, databaseURL, eventstore.Open)
	for _, sql := range []string{
		"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2.6); RETURN NULL; END $$",
		"CREATE TRIGGER slow AFTER INSERT ON upcall.upload_events FOR EACH STATEMENT EXECUTE FUNCTION slow()",
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	receiver := start(t, Config{DatabaseURL: databaseURL, TrustKeyURLs: []string{keyURL},
		Reply: &ReplyConfig{URL: app.URL + "/hang", Secret: app.secret, Timeout: 1500 * time.Millisecond}})
	reached := false
	for n := range 3 {
		wait.Until(t, "PostgreSQL counts as there", func() bool { return receiver.Metric(t, "upcall_database_away") == 0 })
		got := call(http.DefaultClient, receiver.Public, keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%d", n))
		if got.unavailable() && got.took >= 3*time.Second {
			continue // it was not recorded, on a slow machine
		}
		// The application's 1.5 s would end after 4.1 s.
		if got.code != 200 || !strings.HasSuffix(got.body, `"durable":"postgres","reply":null}`) || got.took > intake.Deadline+time.Second {
			t.Errorf("got %d %s after %v", got.code, got.body, got.took)
		}
		reached = true
	}
	if n := len(app.at("/hang")); reached && n == 0 {
		t.Error("the application was not asked")
	}
}

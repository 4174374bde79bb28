package snippet_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/snippet"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/receiverfake"
)

// answer is what the receiver says, and a program must print.
const answer = `{"status":"ok","note":"é \"$1\" <b>\\"}`

// A world is an emulator, and a receiver that it calls.
type world struct {
	t        *testing.T
	oss      *ossfake.Gate
	receiver *receiverfake.Receiver
	late     atomic.Bool // the emulator's clock is a day ahead
}

func newWorld(t *testing.T, origins ...string) *world {
	t.Helper()
	w := &world{t: t, receiver: receiverfake.New(t)}
	w.accept()
	w.oss = ossfake.NewGate(t, ossfake.NewEmulator(t, func(c *ossemu.Config) {
		if len(origins) > 0 {
			rule := ossemu.DefaultCORS()
			rule.Origins = origins
			c.CORS = &rule
		}
		c.Now = func() time.Time {
			if w.late.Load() {
				return time.Now().Add(24 * time.Hour)
			}
			return time.Now()
		}
	}))
	return w
}

// accept has the receiver accept callbacks from now on.
func (w *world) accept() {
	w.receiver.AnswerWith(func(rw http.ResponseWriter, _ *http.Request) { receiverfake.Respond(rw, http.StatusOK, answer) })
}

// refused runs upload while the receiver refuses callbacks, and wants it to be called.
func (w *world) refused(upload func()) {
	w.t.Helper()
	w.receiver.AnswerWith(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
	upload()
	w.receiver.One(w.t)
	w.accept()
}

// render issues an upload with a callback, and writes its program, as the issuer does.
func (w *world) render(language string, r issue.Request) string {
	w.t.Helper()
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: w.oss.URL,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		w.t.Fatal(err)
	}
	issuer, err := issue.New(issue.Config{OSS: client})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Object.Bucket = ossfake.Bucket
	r.Expires = time.Hour
	r.Callback = &issue.CallbackSpec{URLs: []string{w.receiver.URL + "/oss/callback"}, Vars: map[string]string{"uid": "42"}}
	upload, _, err := issuer.Issue(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	program, err := snippet.Render(language, upload.Request())
	if err != nil {
		w.t.Fatal(err)
	}
	return program
}

// wantCallback takes the one callback that came.
func (w *world) wantCallback(key string, size int64) {
	w.t.Helper()
	r := w.receiver.One(w.t)
	got, err := callbackspec.Parse(r.Header.Get("Content-Type"), []byte(r.Body), nil)
	if err != nil {
		w.t.Errorf("%v in %s", err, r.Body)
	}
	if got.Object != key || got.Size == nil || *got.Size != size || string(got.Vars["uid"]) != `"42"` {
		w.t.Errorf("callback %+v, want %d bytes as %q", got, size, key)
	}
}

// wantObject compares what is stored, by the official client.
func (w *world) wantObject(o oss.Object, content string) {
	w.t.Helper()
	client := ossclient.New(w.oss.URL, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	got, body := ossclient.Get(w.t, client, ossfake.Bucket, o.Key)
	if string(body) != content {
		w.t.Errorf("%d bytes are stored, which are not the %d bytes of the file", len(body), len(content))
	}
	want := map[string]string{}
	if o.ContentType != "" {
		want["Content-Type"] = o.ContentType
	}
	for name, value := range o.Headers {
		want[name] = value
	}
	for name, value := range o.Meta {
		want["x-oss-meta-"+name] = value
	}
	for name, value := range want {
		if stored := got.Headers.Get(name); stored != value {
			w.t.Errorf("%s is stored as %q, want %q", name, stored, value)
		}
	}
	if got.TaggingCount != int32(len(o.Tags)) {
		w.t.Errorf("%d tags are stored, want %d", got.TaggingCount, len(o.Tags))
	}
}

// awkward is an upload whose key and headers each language could misread. It takes
// content alone.
func awkward(content string, md5 string) issue.Request {
	var all strings.Builder // every character that a header can hold
	for c := byte('!'); c <= '~'; c++ {
		all.WriteByte(c)
	}
	size := int64(len(content))
	return issue.Request{
		Object: oss.Object{
			Key:         `é/it's a+b%41 \ "q" $HOME ${x} #{y} ?&=.txt`,
			ContentType: "text/plain; charset=utf-8",
			Meta: map[string]string{
				"all":      all.String(),
				"quotes":   `a 'single' "double" ` + "`ticked`" + ` \"both\' '''three''' """three"""`,
				"escapes":  `\ \\ \n \u0041 \x41 \101 \\u0041 %41 %s %d %% &quot; &#39; ??/ ??' ?\`,
				"inserted": `$HOME ${HOME} $(id) #{1} {{.}} {0} @file !x ~ *`,
				"markup":   `</script><!-- <script> --> </style> ]]> ?> <?php /* */ //`,
			},
			Tags: map[string]string{"a": "1 + 2", "b:c": "d/e=f"},
			Headers: map[string]string{
				"cache-control":       "no-cache, max-age=0",
				"content-disposition": `attachment; filename="it's.txt"; filename*=UTF-8''%C3%A9.txt`,
				"content-language":    "de, en",
				"expires":             "Wed, 21 Oct 2037 07:28:00 GMT",
			},
		},
		ContentLength: &size,
		ContentMD5:    md5,
	}
}

package snippet_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/callbackspec"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/snippet"
)

const (
	bucket, region = "demo", "cn-hangzhou"
	keyID, secret  = "ak", "sk"

	// answer is what the receiver says, and a program must print.
	answer = `{"status":"ok","note":"é \"$1\" <b>\\"}`
)

// A world is an emulator, and a receiver that it calls.
type world struct {
	t         *testing.T
	oss       *httptest.Server
	receiver  *httptest.Server
	refuse    atomic.Bool // the receiver refuses callbacks
	late      atomic.Bool // the emulator's clock is a day ahead
	preflight atomic.Int64
	callbacks chan callbackspec.Callback
}

func newWorld(t *testing.T, origins ...string) *world {
	t.Helper()
	w := &world{t: t, callbacks: make(chan callbackspec.Callback, 10)}
	w.receiver = httptest.NewServer(http.HandlerFunc(w.receive))
	t.Cleanup(w.receiver.Close)
	emulator, err := ossemu.New(ossemu.Config{
		AccessKeyID: keyID, AccessKeySecret: secret, Region: region, Buckets: []string{bucket}, AllowedOrigins: origins,
		Now: func() time.Time {
			if w.late.Load() {
				return time.Now().Add(24 * time.Hour)
			}
			return time.Now()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.oss = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.preflight.Add(1)
		}
		emulator.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.oss.Close)
	t.Cleanup(emulator.Close)
	return w
}

func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Error(err)
	}
	if w.refuse.Load() {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	callback, err := callbackspec.Parse(r.Header.Get("Content-Type"), body, nil)
	if err != nil {
		w.t.Errorf("%v in %s", err, body)
	}
	w.callbacks <- callback
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	io.WriteString(rw, answer)
}

// render issues an upload with a callback, and writes its program, as the issuer does.
func (w *world) render(language string, r issue.Request) string {
	w.t.Helper()
	client, err := oss.New(oss.Config{Region: region, Endpoint: w.oss.URL, AccessKeyID: keyID, AccessKeySecret: secret})
	if err != nil {
		w.t.Fatal(err)
	}
	issuer, err := issue.New(issue.Config{OSS: client})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Object.Bucket = bucket
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
	if len(w.callbacks) != 1 {
		w.t.Errorf("%d callbacks came, want 1", len(w.callbacks))
		return
	}
	got := <-w.callbacks
	if got.Object != key || got.Size == nil || *got.Size != size || string(got.Vars["uid"]) != `"42"` {
		w.t.Errorf("callback %+v, want %d bytes as %q", got, size, key)
	}
}

// wantObject compares what is stored, by the official client.
func (w *world) wantObject(o oss.Object, content string) {
	w.t.Helper()
	client := sdk.NewClient(sdk.LoadDefaultConfig().WithCredentialsProvider(credentials.NewStaticCredentialsProvider(keyID, secret)).
		WithRegion(region).WithEndpoint(w.oss.URL).WithUsePathStyle(true).WithRetryMaxAttempts(1))
	got, err := client.GetObject(w.t.Context(), &sdk.GetObjectRequest{Bucket: sdk.Ptr(bucket), Key: sdk.Ptr(o.Key)})
	if err != nil {
		w.t.Error(err)
		return
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil || string(body) != content {
		w.t.Errorf("%d bytes are stored, which are not the %d bytes of the file: %v", len(body), len(content), err)
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

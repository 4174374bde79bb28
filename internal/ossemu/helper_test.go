package ossemu

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/callbackspec"
)

const (
	testKeyID  = "test-id"
	testSecret = "test-secret"
	testBucket = "demo"
	testRegion = "cn-hangzhou"
)

// start serves an emulator over real HTTP.
func start(t testing.TB, change ...func(*Config)) (*Server, string) {
	t.Helper()
	cfg := Config{AccessKeyID: testKeyID, AccessKeySecret: testSecret, Region: testRegion, Buckets: []string{testBucket, "other"},
		Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() { s.Close(); h.Close() })
	return s, h.URL
}

// A wire is one request in the making, signed by hand so that each part can be wrong.
type wire struct {
	method, base, bucket, key string
	query                     url.Values
	header                    http.Header
	body                      io.Reader
	at                        time.Time
	expires                   string
	keyID, secret, region     string
	date, product             string // of the scope, if they differ
	additional                string
	tamper                    func(*http.Request)
}

func newWire(method, base, key string) *wire {
	return &wire{method: method, base: base, bucket: testBucket, key: key, query: url.Values{}, header: http.Header{},
		at: time.Now().UTC(), expires: "600", keyID: testKeyID, secret: testSecret, region: testRegion, product: "oss"}
}

func (w *wire) credential() credential {
	date := w.date
	if date == "" {
		date = w.at.Format(isoDate)
	}
	return credential{w.keyID, date, w.region, w.product, requestV4}
}

func (w *wire) request(t testing.TB) *http.Request {
	t.Helper()
	path := "/" + w.bucket
	if w.key != "" {
		path += "/" + escapePath(w.key)
	}
	r, err := http.NewRequestWithContext(t.Context(), w.method, w.base+path, w.body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = w.header.Clone()
	return r
}

// presigned signs in the query.
func (w *wire) presigned(t testing.TB) *http.Request {
	r := w.request(t)
	q := query{}
	for k, v := range w.query {
		q[k] = v[0]
	}
	cred := w.credential()
	q["x-oss-signature-version"] = algorithmV4
	q["x-oss-credential"] = w.keyID + "/" + cred.scope()
	q["x-oss-date"] = w.at.Format(isoTime)
	if w.expires != "" {
		q["x-oss-expires"] = w.expires
	}
	var additional []string
	if w.additional != "" {
		q["x-oss-additional-headers"] = w.additional
		additional = strings.Split(w.additional, ";")
	}
	a := authorization{credential: cred, date: w.at.Format(isoTime)}
	canonical := canonicalRequest(w.method, w.bucket, w.key, q, r.Header, r.Host, additional)
	r.URL.RawQuery = q.canonical() + "&x-oss-signature=" + signV4(w.secret, cred, stringToSignV4(a, canonical))
	if w.tamper != nil {
		w.tamper(r)
	}
	return r
}

// headerSigned signs in the Authorization header.
func (w *wire) headerSigned(t testing.TB) *http.Request {
	r := w.request(t)
	q := query{}
	for k, v := range w.query {
		q[k] = v[0]
	}
	r.URL.RawQuery = q.canonical()
	cred := w.credential()
	r.Header.Set("x-oss-date", w.at.Format(isoTime))
	r.Header.Set("x-oss-content-sha256", unsignedPayload)
	a := authorization{credential: cred, date: w.at.Format(isoTime)}
	var additional []string
	list := ""
	if w.additional != "" {
		additional = strings.Split(w.additional, ";")
		list = ",AdditionalHeaders=" + w.additional
	}
	canonical := canonicalRequest(w.method, w.bucket, w.key, q, r.Header, r.Host, additional)
	r.Header.Set("Authorization", algorithmV4+" Credential="+w.keyID+"/"+cred.scope()+list+",Signature="+signV4(w.secret,
		cred, stringToSignV4(a, canonical)))
	if w.tamper != nil {
		w.tamper(r)
	}
	return r
}

// A reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

func send(t testing.TB, r *http.Request) reply {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

type errorXML struct {
	Code, Message, RequestId, HostId, EC, RecommendDoc   string
	ArgumentName, ArgumentValue                          string
	StringToSign, CanonicalRequest, SignatureProvided    string
	OSSAccessKeyId, Expires, ServerTime, BucketName, Key string
}

func (r reply) errorXML(t testing.TB) errorXML {
	t.Helper()
	var e errorXML
	if err := xml.Unmarshal([]byte(r.body), &e); err != nil {
		t.Fatalf("answer %d is not an error document: %v\n%s", r.status, err, r.body)
	}
	if e.RequestId != r.header.Get("x-oss-request-id") {
		t.Errorf("RequestId %q differs from the header %q", e.RequestId, r.header.Get("x-oss-request-id"))
	}
	if e.EC != r.header.Get("x-oss-ec") {
		t.Errorf("EC %q differs from the header %q", e.EC, r.header.Get("x-oss-ec"))
	}
	return e
}

// wantError checks status and code, and gives the document.
func wantError(t testing.TB, r reply, status int, code string) errorXML {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d\n%s", r.status, status, r.body)
	}
	e := r.errorXML(t)
	if e.Code != code {
		t.Fatalf("code %s (%s), want %s", e.Code, e.Message, code)
	}
	return e
}

// A receiver is a callback receiver that keeps what it was sent.
type receiver struct {
	url string
	mu  sync.Mutex
	got []received
}

type received struct {
	method, target, host string
	header               http.Header
	body                 string
}

func (r *receiver) requests() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.got...)
}

// receive starts a receiver; a nil answer is {"Status":"OK"}.
func receive(t testing.TB, answer http.HandlerFunc) *receiver {
	t.Helper()
	if answer == nil {
		answer = func(w http.ResponseWriter, _ *http.Request) { respond(w, 200, `{"Status":"OK"}`) }
	}
	rec := &receiver{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rec.mu.Lock()
		rec.got = append(rec.got, received{r.Method, r.RequestURI, r.Host, r.Header.Clone(), string(body)})
		rec.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(h.Close)
	rec.url = h.URL
	return rec
}

func respond(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func encode(t testing.TB, p callbackspec.Parameter) string {
	t.Helper()
	document, err := p.Document(callbackspec.AnyHost)
	if err != nil {
		t.Fatal(err)
	}
	return document.Base64()
}

// putWith uploads with a callback in the header.
func putWith(t testing.TB, base, key, content string, p callbackspec.Parameter) reply {
	t.Helper()
	w := newWire("PUT", base, key)
	w.body = strings.NewReader(content)
	w.header.Set("x-oss-callback", encode(t, p))
	return send(t, w.presigned(t))
}

func setFaults(t testing.TB, base, doc string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", base+"/_ossemu/faults", strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, r); got.status != 200 {
		t.Fatalf("faults %s: %d %s", doc, got.status, got.body)
	}
}

func fetch(t testing.TB, rawURL string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", rawURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, r)
}

func deliveries(t testing.TB, base, object string) []Delivery {
	t.Helper()
	got := fetch(t, base+"/_ossemu/callbacks?object="+url.QueryEscape(object))
	var list []Delivery
	if err := json.NewDecoder(bytes.NewReader([]byte(got.body))).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return list
}

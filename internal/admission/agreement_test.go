package admission_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/event"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/vectors"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// A trial records which answers were tried.
type trial struct {
	tried  map[answer]bool
	keys   *uploadtoken.Keyring
	keyURL string
}

// TestReceiverAndDoctorAgree provokes every refusal in both. It fails if one is not tried.
func TestReceiverAndDoctorAgree(t *testing.T) {
	t.Parallel()
	keys, err := uploadtoken.ParseKeys("k1:a test secret of 32 bytes or so")
	if err != nil {
		t.Fatal(err)
	}
	all := trial{make(map[answer]bool), keys, ossfake.KeyURL(t)}
	all.rules(t)
	all.signatures(t)
	all.canceled(t)
	all.recording(t)

	var codes, reasons []string
	for a := range all.tried {
		codes, reasons = append(codes, string(a.code)), append(reasons, string(a.reason))
	}
	for _, code := range constants(t, "Code") {
		if !slices.Contains(codes, code) {
			t.Errorf("code %s was not tried", code)
		}
	}
	for _, reason := range append(constants(t, "Reason"), failures(t)...) {
		if !slices.Contains(reasons, reason) {
			t.Errorf("reason %s was not tried", reason)
		}
	}
}

const path, fields = "/oss/callback", "bucket=demo&object=a.txt&reqId=R1"

// signed returns a callback as OSS sends it, with changes.
func (a *trial) signed(body string, changes ...func(*callback)) callback {
	c := callback{
		method: http.MethodPost, target: path, body: body, trust: a.keyURL,
		header: http.Header{
			"Authorization":     {ossemu.SignCallback(path, []byte(body))},
			"Content-Type":      {"application/x-www-form-urlencoded"},
			"X-Oss-Bucket":      {"demo"},
			"X-Oss-Pub-Key-Url": {base64.StdEncoding.EncodeToString([]byte(a.keyURL))},
		},
		admission: admission.Config{CallbackPaths: []string{path}, Buckets: []string{"demo", "other"}, Tokens: a.keys},
	}
	for _, change := range changes {
		change(&c)
	}
	return c
}

func set(name, value string) func(*callback) {
	return func(c *callback) { c.header.Set(name, value) }
}

// token returns the form field with the token of an upload.
func (a *trial) token(t *testing.T, bucket, object string, expires time.Time) string {
	t.Helper()
	token, err := a.keys.Mint(uploadtoken.Claims{
		UploadID: uuid.New(), Expires: expires, Bucket: bucket, Object: object, ContentType: "text/plain", Size: new(int64(5)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return "&upcall_token=" + token
}

// both checks the answers of receiver and doctor.
func (a *trial) both(t *testing.T, ctx context.Context, want answer, c callback) {
	t.Helper()
	a.tried[want] = true
	if got := c.receive(t, ctx, strings.NewReader(c.body), recorded); got != want {
		t.Errorf("the receiver says %v, want %v", got, want)
	}
	if got := c.diagnose(t, ctx); got != want {
		t.Errorf("the doctor says %v, want %v", got, want)
	}
}

func (a *trial) rules(t *testing.T) {
	soon := noon.Add(time.Hour)
	good := fields + a.token(t, "demo", "a.txt", soon)
	for want, cases := range map[answer][]callback{
		{}: {
			a.signed(good),
			a.signed(fields, func(c *callback) { c.admission.TokenPolicy = admission.TokenOptional }),
			a.signed(fields+"&upcall_token=x", func(c *callback) { c.admission.TokenPolicy = admission.TokenOff }),
			a.signed(good, set("X-Long", strings.Repeat("a", admission.MaxHeaders-1000))),
			a.signed(good, set("Content-Encoding", "identity")),
		},
		{admission.NotFound, admission.ReasonPath}: {
			a.signed(good, func(c *callback) { c.admission.CallbackPaths = []string{"/callback"} }),
			a.signed(good, func(c *callback) { c.target += "/" }),
			a.signed(good, func(c *callback) { c.method, c.target = http.MethodGet, "/" }),
		},
		{admission.MethodNotAllowed, admission.ReasonMethod}: {
			a.signed(good, func(c *callback) { c.method = http.MethodPut }),
			a.signed("", func(c *callback) { c.method = http.MethodGet }),
		},
		{admission.TooLarge, admission.ReasonHeaders}: {a.signed(good,
			set("X-Long", strings.Repeat("a", admission.MaxHeaders)))},
		{admission.UnsupportedType, admission.ReasonContentEncoding}: {a.signed(good, set("Content-Encoding", "gzip"))},
		{admission.TooLarge, admission.ReasonBody}: {
			a.signed(good + strings.Repeat("a", admission.MaxBody)),
			a.signed(good+strings.Repeat("a", admission.MaxBody), set("Authorization", "")),
		},
		{admission.UnsupportedType, admission.ReasonContentType}: {a.signed(good, set("Content-Type", "text/plain"))},
		{admission.Malformed, admission.ReasonBody}: {
			a.signed("bucket=demo&bucket=other"),
			a.signed("object=%ff"),
			a.signed(`{"bucket":`, set("Content-Type", "application/json")),
		},
		{admission.WrongBucket, admission.ReasonBucketConflict}: {
			a.signed(good, set("X-Oss-Bucket", "other")),
			a.signed(good, set("X-Oss-Bucket", "demo\xff")),
		},
		{admission.WrongBucket, admission.ReasonBucketMalformed}: {a.signed("object=a.txt", set("X-Oss-Bucket", "demo\xff"))},
		{admission.WrongBucket, admission.ReasonBucketNotAllowed}: {
			a.signed("bucket=mine&object=a.txt", set("X-Oss-Bucket", "mine")),
			a.signed("bucket=mine&object=a.txt"),
			a.signed("object=a.txt", set("X-Oss-Bucket", "mine")),
		},
		{admission.BadToken, admission.ReasonTokenMissing}:       {a.signed(fields)},
		{admission.BadToken, admission.ReasonTokenForged}:        {a.signed(fields + "&upcall_token=k1.AAAA")},
		{admission.BadToken, admission.ReasonTokenForeignBucket}: {a.signed(fields + a.token(t, "other", "a.txt", soon))},
		{admission.BadToken, admission.ReasonTokenForeignKey}:    {a.signed(fields + a.token(t, "demo", "b.txt", soon))},
		{admission.BadToken, admission.ReasonTokenForeignVars}:   {a.signed(good + "&uid=1")},
		{admission.BadToken, admission.ReasonTokenForeignType}:   {a.signed(good + "&mimeType=text/html")},
		{admission.BadToken, admission.ReasonTokenForeignSize}:   {a.signed(good + "&size=6")},
		{admission.ExpiredToken, admission.ReasonTokenExpired}:   {a.signed(fields + a.token(t, "demo", "a.txt", noon))},
	} {
		for _, c := range cases {
			a.both(t, t.Context(), want, c)
		}
	}
}

// signatures tries the vectors, which have everything that can be wrong with a signature.
func (a *trial) signatures(t *testing.T) {
	for id, v := range vectors.Load(t) {
		if strings.ContainsAny(v.Authorization+v.PubKeyURL, "\r\n") {
			continue // not possible in a header
		}
		target, err := url.ParseRequestURI(v.Target)
		if err != nil {
			continue // servers do not accept it
		}
		c := callback{
			method: http.MethodPost, target: v.Target, body: v.Body, header: make(http.Header),
			admission: admission.Config{CallbackPaths: []string{target.Path}, TokenPolicy: admission.TokenOff},
		}
		if target.Path == "" || c.admission.Check() != nil {
			c.admission.CallbackPaths = []string{"/elsewhere"} // receivers cannot be configured to listen there
		}
		if v.KeyServer != nil {
			url, _ := v.KeyServer.Start(t)
			v.PubKeyURL = base64.StdEncoding.EncodeToString([]byte(url))
			if !v.KeyServer.Untrusted {
				c.trust = url
			}
		}
		for name, value := range map[string]string{
			"Authorization": v.Authorization, "Content-Type": v.ContentType, "X-Oss-Pub-Key-Url": v.PubKeyURL,
			"X-Oss-Signature-Version": v.SignatureVersion,
		} {
			if value != "" {
				c.header.Set(name, value)
			}
		}
		received := c.receive(t, t.Context(), strings.NewReader(c.body), recorded)
		if got := c.diagnose(t, t.Context()); got != received {
			t.Errorf("vector %s: the receiver says %v, the doctor %v", id, received, got)
		}
		a.tried[received] = true
	}
}

// canceled tries a caller that disconnects while the key is fetched.
func (a *trial) canceled(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	keyURL := base64.StdEncoding.EncodeToString([]byte(server.URL))
	a.both(t, gone, answer{admission.Unavailable, admission.Reason(verify.ErrCanceled.Reason())},
		a.signed(fields, set("X-Oss-Pub-Key-Url", keyURL), func(c *callback) { c.trust = server.URL }))
}

// recording tries failures of recording a good callback, which the doctor cannot see.
func (a *trial) recording(t *testing.T) {
	c := a.signed(fields + a.token(t, "demo", "a.txt", noon.Add(time.Hour)))
	if got := c.diagnose(t, t.Context()); got != (answer{}) {
		t.Errorf("the doctor says %v", got)
	}
	saying := func(errs ...error) func() error { return func() error { return errors.Join(errs...) } }
	for want, say := range map[answer]func() error{
		{admission.BadToken, admission.ReasonTokenOverused}:       saying(event.ErrOverused),
		{admission.BadToken, admission.ReasonTokenRevoked}:        saying(event.ErrRevoked),
		{admission.Malformed, admission.ReasonNotStorable}:        saying(event.ErrUnstorable),
		{admission.Unavailable, admission.ReasonDatabase}:         saying(event.ErrUnavailable),
		{admission.Unavailable, admission.ReasonSpoolFull}:        saying(event.ErrUnavailable, event.ErrSpoolFull),
		{admission.Unavailable, admission.ReasonSpoolUnwritable}:  saying(event.ErrUnavailable, event.ErrSpoolUnwritable),
		{admission.Unavailable, admission.ReasonStreamFull}:       saying(event.ErrUnavailable, event.ErrStreamFull),
		{admission.Unavailable, admission.ReasonStreamUnwritable}: saying(event.ErrUnavailable, event.ErrStreamUnwritable),
		{admission.Unavailable, admission.ReasonDeadline}:         saying(context.DeadlineExceeded),
		{admission.Unavailable, admission.ReasonInternal}:         saying(io.ErrShortWrite),
		{admission.Unavailable, admission.ReasonPanic}:            func() error { panic("broken") },
	} {
		a.tried[want] = true
		if got := c.receive(t, t.Context(), strings.NewReader(c.body), say); got != want {
			t.Errorf("the receiver says %v, want %v", got, want)
		}
	}
	short := answer{admission.Malformed, admission.ReasonBodyCutShort}
	a.tried[short] = true
	if got := c.receive(t, t.Context(), iotest.ErrReader(io.ErrUnexpectedEOF), recorded); got != short {
		t.Errorf("the receiver says %v, want %v", got, short)
	}
}

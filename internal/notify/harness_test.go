package notify

import (
	"context"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/httpserver"
	"upcall/internal/recorder"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/vectors"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

const (
	keyURL    = "http://keys.test/mns.pem"
	testKeys  = "k1:a test secret of 32 bytes or so"
	testToken = "a token of the operator's"
)

var (
	noon    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ourOwn  = Topic{"1321669497458181", "oss-events"}
	foreign = Topic{"1321669497458181", "others"}
)

func keyring(t testing.TB) *uploadtoken.Keyring {
	t.Helper()
	keys, err := uploadtoken.ParseKeys(testKeys)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// store is a Recorder, and keeps refusals.
type store struct {
	mu      sync.Mutex
	events  []*event.Event
	refused []event.RefusedCallback
	fail    func(*event.Event) error
	durable recorder.Durable
}

func (s *store) Record(_ context.Context, e *event.Event) (recorder.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(e); err != nil {
			return recorder.Outcome{}, err
		}
	}
	outcome := recorder.Outcome{Durable: s.durable}
	if outcome.Duplicate = slices.ContainsFunc(s.events, func(other *event.Event) bool { return other.ID == e.ID }); !outcome.Duplicate {
		s.events = append(s.events, e)
	}
	return outcome, nil
}

func (s *store) Refused(_ *admission.Refusal, _ time.Time, describe func() event.RefusedCallback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, describe())
}

// A service is a Server on a listener.
type service struct {
	*store
	url      string
	log      *logtest.Buffer
	registry *prometheus.Registry
}

func serve(t testing.TB, change func(*Config)) *service {
	t.Helper()
	verifier, err := verify.NewWithKey(keyURL, vectors.PublicKey(t))
	if err != nil {
		t.Fatal(err)
	}
	logger, log := logtest.New()
	kept := &store{durable: recorder.InPostgres}
	cfg := Config{
		Topics: []Topic{{"1", "x"}, ourOwn}, Token: testToken,
		Admission: admission.Config{Tokens: keyring(t), Buckets: []string{"demo"}, CallbackPaths: []string{"/oss/callback"}},
		Verifier:  verifier, Recorder: kept, Refusals: kept, Logger: logger, Now: func() time.Time { return noon },
	}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	registry := httpserver.NewRegistry()
	registry.MustRegister(server.Collectors()...)
	engine := httpserver.NewEngine()
	server.Register(engine)
	public := httptest.NewServer(engine)
	t.Cleanup(public.Close)
	return &service{store: kept, url: public.URL, log: log, registry: registry}
}

// counts returns the counters that are not zero, as name{label}=value without the prefix.
func (s *service) counts(t testing.TB) string {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if value := m.GetCounter().GetValue(); value > 0 && strings.HasPrefix(family.GetName(), "upcall_notification") {
				name := "refused:"
				if family.GetName() == "upcall_notifications_total" {
					name = ""
				}
				all = append(all, fmt.Sprintf("%s%s=%v", name, m.GetLabel()[0].GetValue(), value))
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// A push is a request of MNS before it is signed.
type push struct {
	target string
	body   string
	header http.Header
	after  func(*http.Request) // it has been signed
}

// pushed returns a push of a message in the format SIMPLIFIED, as is.
func pushed(body string) *push {
	return &push{target: DefaultPath, body: body, header: http.Header{
		"Content-Type":      {"text/plain;charset=utf-8"},
		"Date":              {noon.Format(http.TimeFormat)},
		"X-Mns-Message-Id":  {"250EB49D5F8D737A391C93C6ED165396"},
		"X-Mns-Request-Id":  {"6423F9B7BF94313030AF5EA0"},
		"X-Mns-Topic-Name":  {ourOwn.Name},
		"X-Mns-Topic-Owner": {ourOwn.Owner},
		"X-Mns-Version":     {"2015-06-06"},
	}}
}

// set changes a header before it is signed; no value removes it.
func (p *push) set(name string, values ...string) *push {
	if p.header[name] = values; len(values) == 0 {
		delete(p.header, name)
	}
	return p
}

// wrapped is the body of the formats XML and JSON.
type wrapped struct {
	XMLName          xml.Name `xml:"Notification" json:"-"`
	Namespace        string   `xml:"xmlns,attr" json:"-"`
	TopicOwner       string
	TopicName        string
	Subscriber       string
	SubscriptionName string
	MessageId        string
	MessageMD5       string
	MessageTag       string
	Message          string
	PublishTime      string
}

func wrap(topic Topic, message string) wrapped {
	return wrapped{Namespace: "http://mns.aliyuncs.com/doc/v1/", TopicOwner: topic.Owner, TopicName: topic.Name, Subscriber: topic.Owner,
		SubscriptionName: "upcall", MessageId: "6CC4D900CA59A2CD-1-15180534A8F-20000002", Message: message, PublishTime: "1449556920975"}
}

// asXML and asJSON return a push in a format whose headers do not name the topic.
func asXML(t testing.TB, topic Topic, message string) *push {
	t.Helper()
	body, err := xml.MarshalIndent(wrap(topic, message), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	p := pushed(xml.Header + string(body)).set("X-Mns-Topic-Name").set("X-Mns-Topic-Owner").set("X-Mns-Message-Id")
	return p.set("Content-Type", "text/xml;charset=utf-8")
}

func asJSON(t testing.TB, topic Topic, message string) *push {
	t.Helper()
	body, err := json.Marshal(wrap(topic, message))
	if err != nil {
		t.Fatal(err)
	}
	p := pushed(string(body)).set("X-Mns-Topic-Name").set("X-Mns-Topic-Owner").set("X-Mns-Message-Id")
	return p.set("Content-Type", "application/json;charset=utf-8")
}

func inBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// request signs with the test key, which keyURL stands for.
func (p *push) request(t testing.TB, base string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+p.target, strings.NewReader(p.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = p.header
	sum := md5.Sum([]byte(p.body))
	if _, given := r.Header["Content-Md5"]; !given {
		r.Header.Set("Content-Md5", strings.ToUpper(hex.EncodeToString(sum[:])))
	}
	r.Header.Set("X-Mns-Signing-Cert-Url", inBase64(keyURL))
	signed, err := verify.PushStringToSign(p.target, r.Header)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", sign(t, signed))
	if p.after != nil {
		p.after(r)
	}
	return r
}

// sign signs as MNS does, which crypto/rsa refuses to do with a key of 512 bits.
func sign(t testing.TB, signed []byte) string {
	t.Helper()
	block, _ := pem.Decode(vectors.File(t, "testkey_512.pem"))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*rsa.PrivateKey)
	digest := sha1.Sum(signed)
	info := "\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14" + string(digest[:])
	content := "\x00\x01" + strings.Repeat("\xff", key.Size()-3-len(info)) + "\x00" + info
	m := new(big.Int).SetBytes([]byte(content))
	return base64.StdEncoding.EncodeToString(m.Exp(m, key.D, key.N).FillBytes(make([]byte, key.Size())))
}

// send returns the status, and the code of an error.
func (s *service) send(t testing.TB, p *push) (status int, code string) {
	t.Helper()
	return answer(t, p.request(t, s.url))
}

func answer(t testing.TB, r *http.Request) (status int, code string) {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusNoContent && len(body) == 0 {
		return response.StatusCode, ""
	}
	var problem struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &problem); err != nil || problem.Error.Message == "" {
		t.Errorf("%d with %q, which is no error", response.StatusCode, body)
	}
	return response.StatusCode, problem.Error.Code
}

// An upload is what an event of OSS tells of.
type upload struct {
	name, bucket, key, etag, requestID string
	size                               int64
	at                                 time.Time
	vars                               map[string]string
	more                               string // members of the event, as ,"name":value
}

func put(key string) upload {
	return upload{name: "ObjectCreated:PutObject", bucket: "demo", key: key, etag: "0324ABCD0324ABCD0324ABCD0324ABCD",
		requestID: "5C9E2E4B61E5D16D23E9CEC6", size: 15, at: noon.Add(-time.Minute)}
}

// mint gives the upload a token with its variables that is valid until a minute after noon.
func (u upload) mint(t testing.TB, change func(*uploadtoken.Claims)) upload {
	t.Helper()
	vars := make(callbackspec.Vars)
	for name, value := range u.vars {
		vars[name] = value
	}
	bare := make([]string, 0, len(vars))
	for name := range vars {
		bare = append(bare, strings.TrimPrefix(name, callbackspec.VarPrefix))
	}
	slices.Sort(bare)
	claims := uploadtoken.Claims{UploadID: uploadID, Expires: noon.Add(time.Minute), Bucket: u.bucket, Object: u.key,
		Terms: uploadtoken.Terms(callbackspec.DefaultTerms(callbackspec.JSON, []string{"https://up.example/cb?a=b"}, bare, vars))}
	if change != nil {
		change(&claims)
	}
	token, err := keyring(t).Mint(claims)
	if err != nil {
		t.Fatal(err)
	}
	vars[callbackspec.TokenVar] = token
	u.vars = vars
	return u
}

var uploadID = uuid.MustParse("01935a3c-0000-7000-8000-000000000001")

// event returns the JSON of one event, with xVars beside oss.
func (u upload) event() string { return u.eventWith(true) }

func (u upload) eventWith(beside bool) string {
	vars := ""
	if u.vars != nil {
		vars = `,"xVars":` + encoded(u.vars)
	}
	inside := ""
	if !beside {
		inside, vars = vars, ""
	}
	return fmt.Sprintf(`{"eventName":%s,"eventSource":"acs:oss","eventTime":%q,"eventVersion":"1.0",`+
		`"oss":{"bucket":{"arn":"acs:oss:ap-south-1:59:%s","name":%s,"ownerIdentity":"59","virtualBucket":""},`+
		`"object":{"deltaSize":15,"eTag":%s,"key":%s,"size":%d},"ossSchemaVersion":"1.0","ruleId":"r"%s},`+
		`"region":"ap-south-1","requestParameters":{"sourceIPAddress":"203.0.113.7"},`+
		`"responseElements":{"requestId":%s},"userIdentity":{"principalId":"1"}%s%s}`,
		encoded(u.name), u.at.Format("2006-01-02T15:04:05.000Z"), u.bucket, encoded(u.bucket), encoded(u.etag), encoded(u.key), u.size,
		inside, encoded(u.requestID), vars, u.more)
}

func encoded(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// message returns what OSS publishes.
func message(uploads ...upload) string {
	events := make([]string, len(uploads))
	for i, u := range uploads {
		events[i] = u.event()
	}
	return `{"events":[` + strings.Join(events, ",") + `]}`
}

func md5Of(body string) string {
	sum := md5.Sum([]byte(body))
	return hex.EncodeToString(sum[:])
}

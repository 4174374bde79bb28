package intake

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/httpserver"
	"upcall/internal/recorder"
	"upcall/internal/testing/logtest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// noon is the time of every test that does not need the real time.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const testKeys = "k1:a test secret of 32 bytes or so"

func keyring(t testing.TB) *uploadtoken.Keyring {
	t.Helper()
	keys, err := uploadtoken.ParseKeys(testKeys)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// oss simulates OSS: it signs with the emulator's test key and serves the public key.
type oss struct{ keyURL string }

func newOSS(t testing.TB) *oss { return &oss{ossfake.KeyURL(t)} }

// request returns a callback as OSS sends it.
func (o *oss) request(t testing.TB, base, target, contentType, body string) *http.Request {
	t.Helper()
	r, err := ossfake.Callback(t.Context(), base, target, contentType, body, o.keyURL)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// upload holds the values of a callback with the default template.
type upload struct {
	bucket, object, reqID string
	token                 string // "" leaves it out
	vars                  map[string]string
	url                   string // of the callback; "" has no query
}

// mint makes the upload's token, which is good for an hour from noon.
func (u *upload) mint(t testing.TB, bodyType callbackspec.BodyType) uuid.UUID {
	t.Helper()
	vars := make(callbackspec.Vars)
	for name, value := range u.vars {
		vars[callbackspec.VarPrefix+name] = value
	}
	template, err := callbackspec.DefaultBody(bodyType, slices.Collect(maps.Keys(u.vars)), true)
	if err != nil {
		t.Fatal(err)
	}
	terms, err := callbackspec.Parameter{Body: template, BodyType: bodyType, URLs: []string{u.url}}.Terms(vars, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims := uploadtoken.Claims{UploadID: uuid.New(), Expires: noon.Add(time.Hour), Bucket: u.bucket, Object: u.object,
		Terms: uploadtoken.Terms(terms)}
	if u.token, err = keyring(t).Mint(claims); err != nil {
		t.Fatal(err)
	}
	return claims.UploadID
}

func (u upload) body(t testing.TB, bodyType callbackspec.BodyType) string {
	t.Helper()
	values := callbackspec.Values{
		"bucket": u.bucket, "object": u.object, "reqId": u.reqID, "etag": "D8E8FCA2DC0F896FD7CB4CB0031BA249",
		"size": "5", "mimeType": "text/plain", "crc64": "18446744073709551615", "contentMd5": "2Oj8otwPiW/Xy0ywAxuiSQ==",
		"clientIp": "203.0.113.7", "operation": "PutObject", callbackspec.TokenVar: u.token,
	}
	var names []string
	for name, value := range u.vars {
		names = append(names, name)
		values[callbackspec.VarPrefix+name] = value
	}
	template, err := callbackspec.DefaultBody(bodyType, names, u.token != "")
	if err != nil {
		t.Fatal(err)
	}
	body, err := callbackspec.Expand(template, bodyType, values)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func mint(t testing.TB, bucket, object string, expires time.Time) (uuid.UUID, string) {
	t.Helper()
	id := uuid.New()
	token, err := keyring(t).Mint(uploadtoken.Claims{UploadID: id, Expires: expires, Bucket: bucket, Object: object})
	if err != nil {
		t.Fatal(err)
	}
	return id, token
}

// issued returns an upload with a token that is valid at noon.
func issued(t testing.TB, object, reqID string) upload {
	t.Helper()
	_, token := mint(t, "demo", object, noon.Add(time.Hour))
	return upload{bucket: "demo", object: object, reqID: reqID, token: token}
}

// A service is a receiver's HTTP side on a real database and real listeners.
type service struct {
	*servetest.Service
	pool *pgxpool.Pool
	log  *logtest.Buffer
}

// serve starts a service for the test. If pool is nil, it has a separate database.
func serve(t testing.TB, o *oss, pool *pgxpool.Pool, change func(*Config)) *service {
	t.Helper()
	if pool == nil {
		pool = dbtest.Pool(t, eventstore.Open)
	}
	if err := eventstore.EnsurePartitions(t.Context(), pool, noon); err != nil {
		t.Fatal(err)
	}
	metrics, registry := NewMetrics(), httpserver.NewRegistry()
	batches := eventstore.NewBatches("upcall", "Callbacks")
	store, err := eventstore.NewRecorder(eventstore.Config{Pool: dbtest.Beside(t, pool, eventstore.OpenRecorder), OnBatch: batches.Observe})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := verify.New(verify.Config{TrustKeyURLs: []string{o.keyURL}})
	if err != nil {
		t.Fatal(err)
	}
	logger, log := logtest.New()
	failover := recorder.New(store, nil, recorder.Config{Logger: logger})
	cfg := Config{
		Verifier: verifier, Recorder: failover, Metrics: metrics,
		Admission: admission.Config{Tokens: keyring(t)},
		Logger:    logger,
		Now:       func() time.Time { return noon },
	}
	registry.MustRegister(slices.Concat(metrics.Collectors(), batches.Collectors(), failover.Collectors())...)
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	running := servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error {
		defer store.Close()
		private := httpserver.New(httpserver.Admin(httpserver.Plain(pool.Ping), registry), logger)
		return server.Serve(ctx, public, httpserver.Site{Server: private, Listener: admin})
	})
	return &service{running, pool, log}
}

// answered is an answer of the receiver.
type answered struct {
	Code      int                            `json:"-"`
	Raw       string                         `json:"-"`
	Header    http.Header                    `json:"-"`
	Status    string                         `json:"status"`
	EventID   string                         `json:"event_id"`
	UploadID  *string                        `json:"upload_id"`
	Duplicate bool                           `json:"duplicate"`
	Durable   string                         `json:"durable"`
	Error     struct{ Code, Message string } `json:"error"`
}

// do sends a request and reads the answer, which must be JSON with a Content-Length.
func do(t testing.TB, r *http.Request) answered {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, response)
}

func readAnswer(t testing.TB, response *http.Response) answered {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answered
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatalf("the answer is not JSON: %v: %s", err, body)
	}
	if got := response.ContentLength; got != int64(len(body)) || got <= 0 {
		t.Errorf("Content-Length is %d, the body has %d bytes", got, len(body))
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
	a.Code, a.Raw, a.Header = response.StatusCode, string(body), response.Header
	return a
}

func count(t testing.TB, pool *pgxpool.Pool) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// answerOn reads the answer from a connection.
func answerOn(t testing.TB, conn net.Conn) answered {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, response)
}

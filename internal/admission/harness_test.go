package admission_test

import (
	"bytes"
	"context"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/doctor"
	"upcall/internal/event"
	"upcall/internal/intake"
	"upcall/internal/recorder"
	"upcall/internal/verify"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// An answer is the result of a request: both are "" if it is accepted.
type answer struct {
	code   admission.Code
	reason admission.Reason
}

// A callback is a request for the receiver and the doctor.
type callback struct {
	method, target string
	header         http.Header
	body           string
	trust          string           // URL of an additional key; "" for none
	admission      admission.Config // for both
}

// receive returns the receiver's answer if its recorder returns the error of fail.
func (c *callback) receive(t *testing.T, ctx context.Context, body io.Reader, fail func() error) answer {
	t.Helper()
	verifier, err := verify.New(verify.Config{TrustKeyURLs: trusted(c.trust)})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	server, err := intake.New(intake.Config{
		Admission: c.admission, Verifier: verifier, Recorder: failing{fail}, Metrics: intake.NewMetrics(),
		Logger: slog.New(slog.NewJSONHandler(&log, nil)), Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.ParseRequestURI(c.target)
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{
		Method: c.method, URL: target, RequestURI: c.target, Header: c.header, RemoteAddr: "203.0.113.1:443",
		Body: io.NopCloser(body), ContentLength: int64(len(c.body)),
	}
	response := httptest.NewRecorder()
	server.Public().ServeHTTP(response, r.WithContext(ctx))
	var got struct{ Error struct{ Code admission.Code } }
	if err := json.Unmarshal(response.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var line struct{ Reason admission.Reason }
	for text := range strings.Lines(log.String()) { // the last is the request's
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
	}
	if (response.Code == http.StatusOK) != (got.Error.Code == "") || (got.Error.Code == "") != (line.Reason == "") {
		t.Errorf("the receiver answers %d %s for %q", response.Code, response.Body, line.Reason)
	}
	return answer{got.Error.Code, line.Reason}
}

// diagnose returns the receiver's answer according to the doctor.
func (c *callback) diagnose(t *testing.T, ctx context.Context) answer {
	t.Helper()
	examiner, err := doctor.New(doctor.Config{
		Admission: c.admission, TrustKeyURLs: trusted(c.trust), Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	capture := &doctor.Capture{
		Format: doctor.Raw, Method: c.method, Target: c.target, Body: []byte(c.body),
		Headers: []doctor.Header{{Name: "Host", Value: strings.Repeat("h", 200)}}, // net/http keeps it apart from the headers
	}
	for name, values := range c.header {
		for _, value := range values {
			capture.Headers = append(capture.Headers, doctor.Header{Name: strings.ToLower(name), Value: value})
		}
	}
	report, err := examiner.Examine(ctx, capture)
	if err != nil {
		t.Fatal(err)
	}
	if report.Accepted != (report.Code == "") {
		t.Errorf("the doctor says accepted %t, and %s", report.Accepted, report.Code)
	}
	for i, refusal := range report.Refusals {
		if refusal.What == "" || refusal.Fix == "" {
			t.Errorf("%s is not explained: %+v", refusal.Reason, refusal)
		}
		first, said := answer{refusal.Code, refusal.Reason}, answer{report.Code, report.Reason}
		if i == 0 && report.Verdict == doctor.Verifies && first != said {
			t.Errorf("the first refusal is %v, and the answer %v", first, said)
		}
	}
	if len(report.Causes) == 0 && len(report.Refusals) == 0 && !report.Accepted && report.Fix == "" {
		t.Errorf("%s is not explained: %+v", report.Reason, report)
	}
	return answer{report.Code, report.Reason}
}

func trusted(url string) []string {
	if url == "" {
		return nil
	}
	return []string{url}
}

// failing is a recorder that returns a given error.
type failing struct{ say func() error }

func (f failing) Record(context.Context, *event.Event) (recorder.Outcome, error) {
	return recorder.Outcome{Durable: recorder.InPostgres}, f.say()
}

func (f failing) Find(context.Context, uuid.UUID, uuid.NullUUID) (recorder.Durable, error) {
	return "", nil
}

func recorded() error { return nil }

// constants returns the values of the constants of a type in refusal.go.
func constants(t *testing.T, typ string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == typ {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	if len(values) < 10 {
		t.Fatalf("found only %d constants of type %s", len(values), typ)
	}
	return values
}

// failures returns the reasons of package verify.
func failures(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("../verify/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, found := range regexp.MustCompile(`&Failure\{\w+, "(\w+)"`).FindAllSubmatch(source, -1) {
		reasons = append(reasons, string(found[1]))
	}
	if len(reasons) < 10 {
		t.Fatalf("found only %d failures", len(reasons))
	}
	return reasons
}

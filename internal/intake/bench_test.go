package intake

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/recorder"
	"upcall/internal/verify"
)

// measured returns a server without database, and what sends it a good callback.
func measured(b *testing.B) (*oss, *Server, upload) {
	b.Helper()
	o := newOSS(b)
	verifier, err := verify.New(verify.Config{TrustKeyURLs: []string{o.keyURL}})
	if err != nil {
		b.Fatal(err)
	}
	server, err := New(Config{
		Verifier: verifier, Recorder: instant{}, Metrics: NewMetrics(),
		Admission: admission.Config{Tokens: keyring(b), Buckets: []string{"demo"}},
		Logger:    slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Now:       func() time.Time { return noon },
	})
	if err != nil {
		b.Fatal(err)
	}
	u := upload{bucket: "demo", object: "photos/cat.jpg", reqID: "5C3D9175B6FC201293AD0001", vars: map[string]string{"uid": "42"}}
	u.mint(b, callbackspec.Form)
	return o, server, u
}

// BenchmarkCallback measures the handler, without network and database.
func BenchmarkCallback(b *testing.B) {
	o, server, u := measured(b)
	handler := server.Public()
	text := u.body(b, callbackspec.Form)
	body := bytes.NewReader([]byte(text))
	request := o.request(b, "", path, string(callbackspec.Form), text)
	request.RequestURI = path
	b.ReportAllocs()
	for b.Loop() {
		body.Reset([]byte(text))
		request.Body = io.NopCloser(body)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK {
			b.Fatal(answer.Body)
		}
	}
}

// instant is a recorder that stores nothing.
type instant struct{}

func (instant) Record(context.Context, *event.Event) (recorder.Outcome, error) {
	return recorder.Outcome{Durable: recorder.InPostgres}, nil
}

func (instant) Find(context.Context, uuid.UUID, uuid.NullUUID) (recorder.Durable, error) {
	return "", nil
}

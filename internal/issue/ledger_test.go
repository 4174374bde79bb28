package issue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/eventstore"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/testing/ossfake"
)

// A fakeLedger keeps rows, and fails with err if it is set.
type fakeLedger struct {
	rows []eventstore.IssuedUpload
	err  error
}

func (l *fakeLedger) Issue(_ context.Context, row eventstore.IssuedUpload) error {
	l.rows = append(l.rows, row)
	return l.err
}

// TestLedger checks that each upload is entered in the ledger.
func TestLedger(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	o, l := ossfake.NewGate(t, ossfake.NewEmulator(t)), &fakeLedger{}
	issuer := newIssuer(t, func(p *oss.Config, c *issue.Config) {
		p.Endpoint, c.Ledger, c.Now = o.URL, l, func() time.Time { return now }
	})
	size := int64(250_000)
	single := goodRequest()
	single.Callback.URLs = []string{o.URL}
	single.ContentLength, single.APIKeyID = &size, "web"
	upload, _, err := issuer.Issue(t.Context(), single)
	if err != nil {
		t.Fatal(err)
	}
	parts := multipartRequest()
	parts.APIKeyID = "app"
	m, _, err := issuer.IssueMultipart(t.Context(), parts)
	if err != nil {
		t.Fatal(err)
	}
	row := eventstore.IssuedUpload{ID: testID, IssuedAt: now, Bucket: "demo", Object: "photos/cat.jpg", ContentType: "image/jpeg",
		Size: &size}
	first, second := row, row
	first.ExpiresAt, first.APIKeyID, first.Vars = upload.ExpiresAt, "web", single.Callback.Vars
	second.ExpiresAt, second.APIKeyID, second.OSSUploadID = m.ExpiresAt, "app", m.OSSUploadID
	if diff := cmp.Diff([]eventstore.IssuedUpload{first, second}, l.rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// TestLedgerFails checks that without a row there is no URL, and that no upload stays open at
// OSS.
func TestLedgerFails(t *testing.T) {
	t.Parallel()
	o, full := ossfake.NewGate(t, ossfake.NewEmulator(t)), errors.New("the disk is full")
	issuer := newIssuer(t, func(p *oss.Config, c *issue.Config) { p.Endpoint, c.Ledger = o.URL, &fakeLedger{err: full} })
	request := goodRequest()
	request.Callback.URLs = []string{o.URL}
	upload, _, err := issuer.Issue(t.Context(), request)
	if diff := cmp.Diff(manifest.Upload{ID: testID}, upload); !errors.Is(err, full) || diff != "" {
		t.Errorf("error %v; upload (-want +got):\n%s", err, diff)
	}
	m, _, err := issuer.IssueMultipart(t.Context(), multipartRequest())
	if diff := cmp.Diff(manifest.Multipart{ID: testID}, m); !errors.Is(err, full) || diff != "" {
		t.Errorf("error %v; manifest (-want +got):\n%s", err, diff)
	}
	if o.Count("POST") != 1 || o.Count("DELETE") != 1 {
		t.Errorf("initiated %d times, aborted %d times", o.Count("POST"), o.Count("DELETE"))
	}
}

package uploader_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/uploader"
	"upcall/internal/uploadtoken"
)

// A shift is a world whose temporary credentials change during an upload: the emulator knows
// only those of after, and the gate translates requests that were signed before.
type shift struct {
	*world
	before, after *issue.Issuer
	request       issue.MultipartRequest
	old, new      manifest.Multipart
}

func newShift(t *testing.T, size int64) *shift {
	t.Helper()
	emulator := ossfake.NewEmulator(t, func(c *ossemu.Config) { c.SecurityToken = "after" })
	s := &shift{world: &world{t: t, gate: ossfake.NewGate(t, emulator), receiver: receiverfake.New(t)}}
	s.before, s.after = s.signer("before"), s.signer("after")
	s.request = issue.MultipartRequest{
		Object: oss.Object{Bucket: "demo", Key: "a.bin"}, Expires: time.Hour, Size: &size, PartSize: partSize, Callback: s.callback(),
	}
	var err error
	if s.new, _, err = s.after.IssueMultipart(t.Context(), s.request); err != nil {
		t.Fatal(err)
	}
	if s.old, err = s.before.RenewMultipart(t.Context(), s.request, s.new); err != nil {
		t.Fatal(err)
	}
	return s
}

// signer returns an issuer that signs with a session token.
func (s *shift) signer(token string) *issue.Issuer {
	s.t.Helper()
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: s.gate.URL,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret, SessionToken: token})
	if err != nil {
		s.t.Fatal(err)
	}
	tokens, err := uploadtoken.ParseKeys("k1:0123456789abcdef")
	if err != nil {
		s.t.Fatal(err)
	}
	issuer, err := issue.New(issue.Config{OSS: client, Tokens: tokens})
	if err != nil {
		s.t.Fatal(err)
	}
	return issuer
}

// expireAt refuses requests that were signed before, from the first of a kind on.
func (s *shift) expireAt(kind, code, says string) {
	var over atomic.Bool
	s.gate.Between(func(rw http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.URL.Query().Get("x-oss-security-token") != "before" {
			serve.ServeHTTP(rw, r)
			return
		}
		if ossfake.Kind(r) == kind {
			over.Store(true)
		}
		if over.Load() {
			refuse(rw, http.StatusForbidden, code, says)
			return
		}
		s.translate(r)
		serve.ServeHTTP(rw, r)
	})
}

// translate replaces the signature of a request from before.
func (s *shift) translate(r *http.Request) {
	requests := []manifest.PresignedRequest{s.new.ListParts, s.new.Complete, *s.new.Head}
	for _, part := range s.new.Parts {
		requests = append(requests, part.PresignedRequest)
	}
	for _, same := range requests {
		u, err := url.Parse(same.URL)
		if err != nil {
			s.t.Error(err)
			return
		}
		if same.Method == r.Method && u.Query().Get("partNumber") == r.URL.Query().Get("partNumber") {
			r.URL.RawQuery = u.RawQuery
			for name, value := range same.Headers {
				r.Header.Set(name, value)
			}
			return
		}
	}
}

// task returns a task that starts with the requests from before and renews them with an issuer.
func (s *shift) task(source *uploader.Source, state *uploader.State, with *issue.Issuer, renewals *atomic.Int32) uploader.Task {
	state.Manifest = &s.old
	return uploader.Task{
		Source: source, Manifest: manifest.Manifest{Multipart: &s.old}, State: state, Watcher: new(log),
		Renew: func(ctx context.Context, m manifest.Multipart) (manifest.Multipart, error) {
			renewals.Add(1)
			return with.RenewMultipart(ctx, s.request, m)
		},
	}
}

// TestRenew checks that what is left of an upload is signed again when its URLs or credentials
// expire, and that no part is sent twice.
func TestRenew(t *testing.T) {
	t.Parallel()
	const size = 4*partSize + 100
	for _, kind := range []string{"GET", "PUT 1", "PUT 3", "POST"} {
		for code, says := range map[string]string{
			"AccessDenied":         "Request has expired.",
			"SecurityTokenExpired": "The security token you provided has expired.",
			"InvalidSecurityToken": "The security token you provided is invalid.",
			"InvalidAccessKeyId":   "The OSS Access Key Id you provided does not exist in our records.",
		} {
			t.Run(kind+" "+code, func(t *testing.T) {
				t.Parallel()
				s := newShift(t, size)
				s.expireAt(kind, code, says)
				_, source := fileOf(t, someBytes(size))
				var renewals atomic.Int32
				state := stateIn(t)
				one := newUploader(t, func(c *uploader.Config) { c.Parallel, c.Attempts = 1, 1 })
				result, err := one.Upload(t.Context(), s.task(source, state.load(), s.after, &renewals))
				if err != nil || result.Kept != 0 || result.CRC64 != crcOf(someBytes(size)) || renewals.Load() != 1 {
					t.Fatalf("%+v, %v, %d renewals", result, err, renewals.Load())
				}
				want := []string{"PUT 1", "PUT 2", "PUT 3", "PUT 4", "PUT 5"}
				if strings.HasPrefix(kind, "PUT") { // it was refused once
					want = append(want, kind)
					slices.Sort(want)
				}
				if got := s.gate.Puts(); !slices.Equal(got, want) {
					t.Errorf("sent %v, want %v", got, want)
				}
			})
		}
	}
}

// TestRenewSameCredentials checks that credentials that have expired are named, and that the
// next run needs only what is missing.
func TestRenewSameCredentials(t *testing.T) {
	t.Parallel()
	const size = 4*partSize + 100
	for code, names := range map[string]string{
		"SecurityTokenExpired": "the credentials have expired", "InvalidAccessKeyId": "OSS_ACCESS_KEY_ID", "InvalidSecurityToken": "OSS_SESSION_TOKEN",
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := newShift(t, size)
			s.expireAt("PUT 3", code, "")
			path, source := fileOf(t, someBytes(size))
			var renewals atomic.Int32
			state := stateIn(t)
			kept := state.load()
			kept.Manifest = &s.old
			if err := kept.Save(); err != nil {
				t.Fatal(err)
			}
			one := newUploader(t, func(c *uploader.Config) { c.Parallel, c.Signs = 1, true })
			_, err := one.Upload(t.Context(), s.task(source, state.load(), s.before, &renewals))
			if status, ok := errors.AsType[*uploader.StatusError](err); !ok || status.Code != code || !strings.Contains(err.Error(), names) {
				t.Fatalf("error %v", err)
			}
			if renewals.Load() != 1 || s.gate.Count("PUT 3") != 1 {
				t.Errorf("%d renewals, sent %v", renewals.Load(), s.gate.Puts())
			}
			// Later there are new ones.
			task := s.task(open(t, path), state.load(), s.after, &renewals)
			resumed, err := one.Resume(t.Context(), task)
			if err != nil || !resumed {
				t.Fatalf("resumed %t, %v", resumed, err)
			}
			result, err := one.Upload(t.Context(), task)
			if err != nil || result.Kept != 2 {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
}

package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// aboveThreshold is the size of a file that the page sends in parts: it does so above 64 MiB.
const aboveThreshold = 64<<20 + 1

// give gives the page a file of that size, full of zeros.
func (v visitor) give(name string, size int64) {
	v.t.Helper()
	path := filepath.Join(v.t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		v.t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		v.t.Fatal(err)
	}
	v.do(chromedp.SetUploadFiles(chromedp.CSS("#files"), []string{path}))
}

// openUploads counts the uploads in the emulator that were neither completed nor aborted.
func (s *site) openUploads(t *testing.T) int {
	t.Helper()
	client := ossclient.New(s.oss.URL, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	return len(ossclient.OpenUploads(t, client, ossfake.Bucket))
}

// visitLarge opens the page with an API key that allows large files.
func visitLarge(t *testing.T) (*site, visitor) {
	t.Helper()
	toolchain.Need(t, "chromium")
	s := newSite(t)
	s.apiKey = s.largeKey
	return s, visit(t, s)
}

// partOf returns the number of the part that a request sends, or "". A preflight sends none.
func partOf(r *http.Request) string {
	if r.Method != http.MethodPut {
		return ""
	}
	return r.URL.Query().Get("partNumber")
}

// onceEach does something else with the first request for each of some parts.
func onceEach(instead map[string]ossfake.Pass) ossfake.Pass {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		mu.Lock()
		pass, ok := instead[partOf(r)]
		delete(instead, partOf(r))
		mu.Unlock()
		if !ok {
			pass = func(w http.ResponseWriter, r *http.Request, serve http.Handler) { serve.ServeHTTP(w, r) }
		}
		pass(w, r, serve)
	}
}

// answerPart answers for OSS once the part was read.
func answerPart(status int, more ...string) ossfake.Pass {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Expose-Headers", "ETag, Retry-After")
		for i := 0; i < len(more); i += 2 {
			w.Header().Set(more[i], more[i+1])
		}
		w.WriteHeader(status)
	}
}

// TestPageParts sends a file above the threshold in parts, of which one is answered with 500, one breaks and one has to wait, and
// finds one row for it.
func TestPageParts(t *testing.T) {
	t.Parallel()
	s, v := visitLarge(t)
	s.oss.Between(onceEach(map[string]ossfake.Pass{
		"1": answerPart(http.StatusInternalServerError), "2": breakOff, "3": answerPart(http.StatusServiceUnavailable, "Retry-After", "0"),
	}))
	v.give("film.txt", aboveThreshold)
	v.waitFor(1, recordedState)
	puts := s.oss.Puts()
	parts := slices.Compact(slices.Clone(puts))
	// The browser may repeat the one that broke by itself.
	if len(parts) < 4 || len(puts) < len(parts)+3 || slices.Contains(puts, "PUT") {
		t.Errorf("sent %q", puts)
	}
	var operation, key string
	var size int64
	err := dbtest.Open(t, s.database, eventstore.Open).QueryRow(t.Context(),
		`SELECT operation, object_key, size FROM upcall.upload_log`).Scan(&operation, &key, &size)
	if err != nil || operation != "CompleteMultipartUpload" || !strings.HasSuffix(key, "-film.txt") || size != aboveThreshold {
		t.Errorf("the row: %s of %s, %d bytes (%v)", operation, key, size, err)
	}
	if rows := s.rows(t); rows != 1 || s.openUploads(t) != 0 {
		t.Errorf("%d rows, %d uploads left open", rows, s.openUploads(t))
	}
}

// TestPagePartsRetry holds that Retry sends only what OSS does not have, and that 203 to the completion is no success.
func TestPagePartsRetry(t *testing.T) {
	t.Parallel()
	s, v := visitLarge(t)
	s.oss.Between(onceEach(map[string]ossfake.Pass{"4": answerPart(http.StatusForbidden)}))
	v.give("film.txt", aboveThreshold)
	v.waitFor(1, "bad: OSS refused a part")
	if rows := s.rows(t); rows != 0 {
		t.Errorf("%d rows", rows)
	}
	sent := s.oss.Puts()
	s.fail.Store(true)
	s.oss.Open()
	v.do(chromedp.Click(chromedp.CSS("#uploads li button")))
	v.waitFor(1, "bad: Stored, but not recorded")
	again := s.oss.Puts()
	for _, put := range again {
		if put != "PUT 4" && slices.Contains(sent, put) {
			t.Errorf("%s was sent again: %q, then %q", put, sent, again)
		}
	}
	if !slices.Contains(again, "PUT 4") || s.rows(t) != 0 {
		t.Errorf("sent %q, then %q; %d rows", sent, again, s.rows(t))
	}
	// What was completed is gone in OSS, so it is issued and sent anew.
	s.fail.Store(false)
	v.do(chromedp.Click(chromedp.CSS("#uploads li button")))
	v.waitFor(1, recordedState)
	if rows := s.rows(t); rows != 1 || s.openUploads(t) != 0 {
		t.Errorf("%d rows, %d uploads left open", rows, s.openUploads(t))
	}
}

// TestPagePartsCancel cancels in the middle: the parts are aborted in OSS, and a retry begins anew.
func TestPagePartsCancel(t *testing.T) {
	t.Parallel()
	s, v := visitLarge(t)
	arrived := make(chan struct{}, 10)
	s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if partOf(r) == "2" {
			arrived <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done() // the page gives up
			return
		}
		serve.ServeHTTP(w, r)
	})
	v.give("film.txt", aboveThreshold)
	<-arrived
	if open := s.openUploads(t); open != 1 {
		t.Errorf("%d open uploads", open)
	}
	v.do(chromedp.Click(chromedp.CSS("#uploads li button")))
	v.waitFor(1, ": Cancelled")
	wait.Until(t, "the upload is aborted in OSS", func() bool { return s.openUploads(t) == 0 })
	s.oss.Open()
	if rows := s.rows(t); rows != 0 {
		t.Errorf("%d rows", rows)
	}
	v.do(chromedp.Click(chromedp.CSS("#uploads li button")))
	v.waitFor(1, recordedState)
	if rows := s.rows(t); rows != 1 || s.openUploads(t) != 0 {
		t.Errorf("%d rows, %d uploads left open", rows, s.openUploads(t))
	}
}

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
)

const recordedState = "good: Uploaded and recorded"

// TestPageManyFiles gives the page far more files than it sends at once, and an issuer that
// sometimes asks to wait.
func TestPageManyFiles(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	const files = 300
	s := newSite(t)
	var asked atomic.Int32
	overRate := ossfake.Pass(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if strings.HasPrefix(r.URL.Path, "/v1/") && asked.Add(1)%100 == 0 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		serve.ServeHTTP(w, r)
	})
	s.issuer.Store(&overRate)
	var now, most atomic.Int32 // PUTs at once
	s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodPut {
			n := now.Add(1)
			defer now.Add(-1)
			for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
			}
		}
		serve.ServeHTTP(w, r)
	})
	v := visit(t, s)
	v.choose(files)
	v.waitFor(files, recordedState)
	if rows := s.rows(t); rows != files {
		t.Errorf("%d rows", rows)
	}
	if got := v.text("#summary"); got != "300 of 300 files uploaded" {
		t.Errorf("summary: %s", got)
	}
	if asked.Load() < files || most.Load() < 2 || most.Load() > 6 {
		t.Errorf("the issuer was asked %d times, and up to %d files were sent at once", asked.Load(), most.Load())
	}
	// The look-ups end later, and change nothing.
	v.until(fmt.Sprintf(`document.querySelectorAll("#uploads table").length === %d`, files))
	v.waitFor(files, recordedState)
	v.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("uploads-title").scrollIntoView()`))
	screenshotOfView(t, v.tab, "page-300.png")
}

// breakOff ends a request without an answer.
func breakOff(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// loseAnswer stores what is uploaded in one piece, and breaks off in the middle of the answer, because browsers repeat a
// request that gets none at all.
func loseAnswer(w http.ResponseWriter, r *http.Request, serve http.Handler) {
	if r.Method != http.MethodPut {
		serve.ServeHTTP(w, r)
		return
	}
	serve.ServeHTTP(discard{}, r)
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Content-Length", "100")
	fmt.Fprint(w, "{")
	http.NewResponseController(w).Flush()
	breakOff(w, r, serve)
}

// TestPageRecordedIsNoFailure checks that no upload whose row is there is shown as failed.
func TestPageRecordedIsNoFailure(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	status := func(code int) ossfake.Pass {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(code) }
	}
	lookUp := func(answer ossfake.Pass) func(*site) {
		return func(s *site) {
			pass := ossfake.Pass(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/uploads/") {
					answer(w, r, serve)
					return
				}
				serve.ServeHTTP(w, r)
			})
			s.issuer.Store(&pass)
		}
	}
	tests := []struct {
		name    string
		arrange func(*site)
		row     bool // the page shows it at once
	}{
		{"the look-up is cut off", lookUp(breakOff), false},
		{"the look-up fails", lookUp(status(http.StatusInternalServerError)), false},
		{"the look-up finds nothing", lookUp(status(http.StatusNotFound)), false},
		{"the key is revoked before the look-up", lookUp(status(http.StatusUnauthorized)), false},
		{"the answer of OSS is lost", func(s *site) { s.oss.Between(loseAnswer) }, true},
		{"the answer of OSS is replaced on the way", func(s *site) {
			s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.Method != http.MethodPut {
					serve.ServeHTTP(w, r)
					return
				}
				serve.ServeHTTP(discard{}, r)
				w.Header().Set("Access-Control-Allow-Origin", "*")
				w.WriteHeader(http.StatusBadGateway)
			})
		}, true},
		{"the answer of the receiver is lost", func(s *site) { s.failsLate.Store(true) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			v := visit(t, s)
			tt.arrange(s)
			v.choose(1)
			if tt.row {
				v.do(chromedp.WaitReady(chromedp.CSS("#uploads table")))
			} else {
				v.do(chromedp.WaitVisible(chromedp.CSS("#uploads li div div button")))
			}
			if got := v.states(); got[0] != recordedState {
				t.Errorf("the page says %s", got)
			}
			if rows := s.rows(t); rows != 1 {
				t.Errorf("%d rows", rows)
			}
			if !tt.row { // it is loaded on request
				s.issuer.Store(nil)
				v.do(chromedp.Click(chromedp.CSS("#uploads li div div button")), chromedp.WaitReady(chromedp.CSS("#uploads table")))
			}
		})
	}
}

// discard is an answer that nobody gets.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// TestPageTriesAgain checks that the page waits for as long as Retry-After says.
func TestPageTriesAgain(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	s := newSite(t)
	v := visit(t, s)
	var last atomic.Int64 // when the last request was turned away
	turnAway := func(status int, after func() string) ossfake.Pass {
		var first atomic.Bool
		return func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
			if (r.Method == http.MethodPost || r.Method == http.MethodPut) && first.CompareAndSwap(false, true) {
				last.Store(time.Now().UnixNano())
				w.Header().Set("Access-Control-Allow-Origin", "*")
				w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
				w.Header().Set("Retry-After", after())
				w.WriteHeader(status)
				return
			}
			if waited := time.Since(time.Unix(0, last.Load())); first.Load() && waited < time.Second &&
				(r.Method == http.MethodPost || r.Method == http.MethodPut) {
				t.Errorf("%s only %s after a Retry-After", r.Method, waited)
			}
			serve.ServeHTTP(w, r)
		}
	}
	seconds := func() string { return "2" }
	date := func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) }
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		for _, after := range []func() string{seconds, date} {
			pass := turnAway(status, after)
			s.issuer.Store(&pass)
			v.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("uploads").replaceChildren()`))
			v.choose(1)
			v.waitFor(1, recordedState)
			s.issuer.Store(nil)
			s.oss.Between(turnAway(status, after))
			v.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("uploads").replaceChildren()`))
			v.choose(1)
			v.waitFor(1, recordedState)
			s.oss.Open()
		}
	}
	if rows := s.rows(t); rows != 8 {
		t.Errorf("%d rows", rows)
	}
}

// TestPageCancelAndRetry checks the buttons.
func TestPageCancelAndRetry(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	s := newSite(t)
	v := visit(t, s)
	arrived := make(chan struct{}, 20)
	s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodPut {
			arrived <- struct{}{}
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done() // the page gives up
			return
		}
		serve.ServeHTTP(w, r)
	})
	v.choose(8)
	for range 5 {
		<-arrived
	}
	v.waitFor(5, ": Uploading")
	v.waitFor(3, ": Waiting")
	screenshot(t, v.tab, "page-cancel.png")
	v.do(chromedp.Click(chromedp.CSS("#cancel")))
	v.waitFor(8, ": Cancelled")
	if len(arrived) > 0 || s.rows(t) != 0 {
		t.Errorf("a file that was cancelled was sent; %d rows", s.rows(t))
	}
	s.oss.Open()
	v.do(chromedp.Click(chromedp.CSS("#uploads li button")))
	v.waitFor(1, recordedState)

	// Uploads that failed are tried again together, with the settings of now.
	s.fail.Store(true)
	v.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("uploads").replaceChildren()`))
	v.choose(3)
	v.waitFor(3, "bad: Stored, but not recorded")
	screenshot(t, v.tab, "page-failed.png")
	s.fail.Store(false)
	v.do(chromedp.Click(chromedp.CSS("#retry")))
	v.waitFor(3, recordedState)
	if rows := s.rows(t); rows != 4 {
		t.Errorf("%d rows", rows)
	}
	// What is recorded by the time of the retry is not uploaded once more.
	pass := ossfake.Pass(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		serve.ServeHTTP(w, r)
	})
	s.issuer.Store(&pass)
	s.failsLate.Store(true)
	v.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("uploads").replaceChildren()`))
	v.choose(1)
	v.waitFor(1, "bad: Stored, but not recorded")
	s.failsLate.Store(false)
	sent := s.oss.Count("PUT")
	v.do(chromedp.Click(chromedp.CSS("#uploads li button"))) // nobody says yet
	v.waitFor(1, "bad: The issuer does not say whether it was recorded; Retry asks again.")
	if again := s.oss.Count("PUT"); again != sent {
		t.Errorf("%d PUTs, then %d, although the file may have been recorded", sent, again)
	}
	s.issuer.Store(nil)
	v.do(chromedp.Click(chromedp.CSS("#uploads li button")))
	v.waitFor(1, recordedState)
	if rows := s.rows(t); rows != 5 {
		t.Errorf("%d rows", rows)
	}
}

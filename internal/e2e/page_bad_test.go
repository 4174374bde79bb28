package e2e

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
)

// TestPageBadConnection gives the page many files over a connection that answers 429 and 503 and breaks: each is recorded
// once and shown so, or shown as failed and not recorded. UPCALL_TEST_WEB_FILES says how many.
func TestPageBadConnection(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	files := 100
	if text := os.Getenv("UPCALL_TEST_WEB_FILES"); text != "" {
		var err error
		if files, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t)
	busy := func(w http.ResponseWriter, status int) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(status)
	}
	half := func(w http.ResponseWriter, r *http.Request, serve http.Handler) { // it is done, and the answer is lost
		serve.ServeHTTP(discard{}, r)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "{")
		http.NewResponseController(w).Flush()
		breakOff(w, r, serve)
	}
	var asked, sent, trouble atomic.Int32
	bad := func(n int32, w http.ResponseWriter, r *http.Request, serve http.Handler) {
		trouble.Add(1)
		switch {
		case n%5 == 0:
			busy(w, http.StatusTooManyRequests)
		case n%7 == 0:
			busy(w, http.StatusServiceUnavailable)
		case n%11 == 0:
			breakOff(w, r, serve)
		case n%13 == 0:
			half(w, r, serve)
		default:
			trouble.Add(-1)
			serve.ServeHTTP(w, r)
		}
	}
	issuer := ossfake.Pass(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if strings.HasPrefix(r.URL.Path, "/v1/uploads") {
			bad(asked.Add(1), w, r, serve)
			return
		}
		serve.ServeHTTP(w, r)
	})
	s.issuer.Store(&issuer)
	s.oss.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.Method == http.MethodPut {
			bad(sent.Add(1), w, r, serve)
			return
		}
		serve.ServeHTTP(w, r)
	})
	v := visit(t, s)
	v.choose(files)
	v.until(fmt.Sprintf(`document.querySelectorAll("#uploads .state.good, #uploads .state.bad").length === %d`, files))
	checkTold(t, v, files, trouble.Load())

	// What failed is tried again over a good connection, and nothing is recorded twice by that.
	s.issuer.Store(nil)
	s.oss.Open()
	v.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("retry").hidden || document.getElementById("retry").click()`))
	v.waitFor(files, recordedState)
	if failed := checkTold(t, v, files, trouble.Load()); failed != 0 {
		t.Errorf("%d files failed in the end", failed)
	}
}

var noteName = regexp.MustCompile(`note-\d+\.txt`)

// checkTold compares what the page says with the rows, and returns how many files failed.
func checkTold(t *testing.T, v visitor, files int, trouble int32) (failed int) {
	t.Helper()
	pool := dbtest.Open(t, v.site.database, eventstore.Open)
	keys, err := pool.Query(t.Context(), "SELECT object_key FROM upcall.upload_log")
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	recorded := make(map[string]int)
	for keys.Next() {
		var key string
		if err := keys.Scan(&key); err != nil {
			t.Fatal(err)
		}
		recorded[noteName.FindString(key)]++
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	told, err := chromedp.Run(v.tab, chromedp.Evaluate[[][]string](`[...document.querySelectorAll("#uploads li")]
		.map(li => [li.querySelector(".name").textContent, li.querySelector(".state").className, li.querySelector(".state").textContent])`))
	if err != nil || len(told) != files {
		t.Fatalf("the page shows %d files (%v)", len(told), err)
	}
	unsure := 0
	for _, row := range told {
		name, least, most := noteName.FindString(row[0]), 0, 0
		switch {
		case row[1] == "state good":
			least, most = 1, 1
		case strings.Contains(row[2], "does not say whether it was recorded"):
			unsure++
			failed, most = failed+1, 1
		default:
			failed++
		}
		if n := recorded[name]; n < least || n > most {
			t.Errorf("%s is recorded %d times, and the page says %s", name, n, row[2])
		}
		delete(recorded, name)
	}
	if unsure > files/100 { // the page asks for minutes, so that it takes fifteen bad answers in a row
		t.Errorf("of %d files the page does not know whether they were recorded", unsure)
	}
	if len(recorded) > 0 {
		t.Errorf("rows of other files: %v", recorded)
	}
	t.Logf("%d files: %d recorded once and told so, %d told as failed and not recorded, of %d not known; "+
		"%d requests were refused or broken", files, files-failed, failed-unsure, unsure, trouble)
	return failed
}

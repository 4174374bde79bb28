package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
)

// TestPageRetryLooksFirst tries uploads again through the uploader module. OSS answers 500 each time, so only the look-up tells
// whether a file was recorded.
func TestPageRetryLooksFirst(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "chromium")
	s := newSite(t)
	broken := ossfake.Pass(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		serve.ServeHTTP(w, r)
	})
	s.issuer.Store(&broken)
	v := visit(t, s)
	const (
		put       = `{ upload_id: "1", method: "PUT", url: "/broken" }`
		form      = `{ upload_id: "1", url: "/broken", fields: { key: "inbox/a.txt" } }`
		unsure    = "The issuer does not say whether it was recorded; Retry asks again."
		refused   = "failed OSS refused the upload: status 500"
		ambiguous = refused + " The row that the issuer shows may be of another file; Retry sends this one again."
		done      = "done Uploaded and recorded"
	)
	for _, tt := range []struct {
		name          string
		issue, lookUp string // what the n-th try gets, from 1
		files         []string
		tries, issued int
		told          []string // of the last try
	}{
		{"nobody says", put, `throw new Error()`, []string{"hello"}, 3, 1, []string{"failed " + unsure}},
		{"the issuer does not say, then says no", put, `if (n === 1) throw new Error(); return { event: null }`, []string{"hello"}, 2, 2,
			[]string{refused}},
		{"recorded after issuing failed", `n > 1 ? refuse() : ` + put, `return { event: n > 2 ? { event_id: "e", size: 5 } : null }`,
			[]string{"hello"}, 3, 2, []string{done}},
		{"the row of a form", form, `return { event: { event_id: "e", size: 5 } }`, []string{"hello"}, 1, 1, []string{done}},
		{"the row of one of two files of different sizes", form, `return { event: { event_id: "e", size: 5 } }`, []string{"hello", "1"},
			1, 2, []string{done, ambiguous}},
		{"the row of one of two files of the same size", form, `return { event: { event_id: "e", size: 5 } }`, []string{"hello", "world"},
			1, 2, []string{ambiguous, ambiguous}},
		{"nobody says of a form", form, `throw new Error()`, []string{"hello"}, 2, 1, []string{"failed " + unsure}},
	} {
		script := fmt.Sprintf(`self.told = undefined; import("./upcall-uploader.js").then(async ({ Uploader }) => {
			let n = 0, issued = 0;
			const refuse = () => { throw new Error("refused") };
			const uploader = new Uploader({ issue: async () => { issued++; return %s }, lookUp: async () => { %s } });
			const files = %q.split(" ").map(content => new File([content], "a.txt"));
			for (n = 1; n <= %d; n++) {
				if (n === 1) uploader.add(files); else uploader.retry();
				await Promise.all(uploader.uploads.map(u => u.finished));
			}
			self.told = uploader.uploads.map(u => u.state + " " + u.message).concat(issued).join("\n");
		}).catch(e => self.told = String(e)); undefined`, tt.issue, tt.lookUp, strings.Join(tt.files, " "), tt.tries)
		v.do(chromedp.Evaluate[chromedp.Void](script))
		v.until(`self.told !== undefined`)
		told, err := chromedp.Run(v.tab, chromedp.Evaluate[string](`self.told`))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(append(tt.told, fmt.Sprint(tt.issued)), "\n"); told != want {
			t.Errorf("%s: told %q, want %q", tt.name, told, want)
		}
	}
}

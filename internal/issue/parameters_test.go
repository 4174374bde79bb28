package issue_test

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/issue"
	"upcall/internal/presign"
)

// TestParametersAreNotMixedUp issues many kinds of callbacks by one issuer, each several
// times and all at once: each gets what an issuer of its own makes.
func TestParametersAreNotMixedUp(t *testing.T) {
	t.Parallel()
	no := false
	base := func() *issue.Callback {
		return &issue.Callback{URLs: []string{"https://a.example.com/"}, Vars: map[string]string{"uid": "1", "album": "2"}}
	}
	var callbacks []*issue.Callback
	for _, change := range []func(*issue.Callback){
		func(*issue.Callback) {},
		func(c *issue.Callback) { c.URLs = []string{"https://b.example.com/"} },
		func(c *issue.Callback) { c.URLs = append(c.URLs, "https://b.example.com/") },
		func(c *issue.Callback) { c.Host = "b.example.com" },
		func(c *issue.Callback) { c.SNI = &no },
		func(c *issue.Callback) { c.BodyType = callbackspec.Form },
		func(c *issue.Callback) { c.BodyType = callbackspec.JSON },
		func(c *issue.Callback) { c.Carriage = presign.InQuery },
		func(c *issue.Callback) { c.Body = "u=${x:uid}&a=${x:album}" },
		func(c *issue.Callback) { c.Vars = nil },
		func(c *issue.Callback) { c.Vars = map[string]string{"uid": "1"} },
		func(c *issue.Callback) { c.Vars = map[string]string{"uidalbum": "1"} },
		func(c *issue.Callback) { c.Vars = map[string]string{"uid": "other", "album": "values"} },
	} {
		c := base()
		change(c)
		callbacks = append(callbacks, c)
	}
	for i := range 300 { // more than are kept
		c := base()
		c.Host = fmt.Sprintf("h%d.example.com", i)
		callbacks = append(callbacks, c)
	}
	shared := newIssuer(t, nil)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for _, c := range callbacks {
				r := goodRequest()
				r.Callback = c
				got, err := shared.Issue(t.Context(), r)
				if err != nil {
					t.Error(err)
					return
				}
				want, err := newIssuer(t, nil).Issue(t.Context(), r)
				if err != nil {
					t.Error(err)
					return
				}
				if diff := cmp.Diff(string(want.Callback), string(got.Callback)); diff != "" {
					t.Errorf("callback (-own +shared):\n%s", diff)
				}
				if !slices.Equal(slices.Sorted(maps.Keys(want.Headers)), slices.Sorted(maps.Keys(got.Headers))) || want.Headers["x-oss-callback"] != got.Headers["x-oss-callback"] {
					t.Errorf("headers %v, want %v", got.Headers, want.Headers)
				}
			}
		})
	}
	wg.Wait()
}

// TestKnownParametersStayStrict: what was once issued opens no door for what looks
// like it.
func TestKnownParametersStayStrict(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, nil)
	good := goodRequest()
	good.Callback.URLs = []string{"https://a.example.com/", "https://b.example.com/"}
	if _, err := issuer.Issue(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*issue.Callback){
		"names that run together": func(c *issue.Callback) { c.Vars = map[string]string{"album\nuid": "1"} },
		"URLs that run together":  func(c *issue.Callback) { c.URLs = []string{"https://a.example.com/;https://b.example.com/"} },
		"six URLs":                func(c *issue.Callback) { c.URLs = slices.Repeat(c.URLs, 3) },
		"value that is no text":   func(c *issue.Callback) { c.Vars = map[string]string{"uid": "\x00", "album": "1"} },
	} {
		r := goodRequest()
		r.Callback.URLs = good.Callback.URLs
		change(r.Callback)
		_, err := issuer.Issue(t.Context(), r)
		_, want := newIssuer(t, nil).Issue(t.Context(), r)
		if err == nil || want == nil || err.Error() != want.Error() {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

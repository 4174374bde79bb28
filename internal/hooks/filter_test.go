package hooks

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/ossrule"
	"upcall/internal/webhook"
)

func TestFilterMatches(t *testing.T) {
	t.Parallel()
	e := anEvent() // photos, a/é.jpg, image/jpeg, uid "7", n 12
	e.Callback.MimeType = "Image/JPEG; q=1"
	e.Callback.Vars["blank"] = json.RawMessage(`""`)
	for _, tt := range []struct {
		name   string
		filter Filter
		want   bool
	}{
		{"nothing", Filter{}, true},
		{"another kind", Filter{On: []webhook.Kind{webhook.Gone, webhook.Disputed}}, false},
		{"bucket", Filter{Buckets: []string{"other", "photos"}}, true},
		{"another bucket", Filter{Buckets: []string{"photo"}}, false},
		{"prefix", Filter{KeyPrefixes: []string{"b/", "a/"}}, true},
		{"prefix that is longer", Filter{KeyPrefixes: []string{"a/é.jpg2"}}, false},
		{"glob", Filter{KeyGlobs: []string{"*/*.jpg"}}, true},
		{"a star stops at a slash", Filter{KeyGlobs: []string{"*.jpg"}}, false},
		{"two stars do not", Filter{KeyGlobs: []string{"**/*.jpg"}}, true},
		{"a character", Filter{KeyGlobs: []string{"a/?.jpg"}}, true},
		{"alternatives", Filter{KeyGlobs: []string{"a/*.{png,jpg}"}}, true},
		{"a class", Filter{KeyGlobs: []string{"[a-c]/*"}}, true},
		{"another class", Filter{KeyGlobs: []string{"[!a-c]/*"}}, false},
		{"no class matches a slash", Filter{KeyGlobs: []string{"a[!x]é.jpg"}}, false},
		{"two stars match no folder", Filter{KeyGlobs: []string{"a/**/é.jpg"}}, true},
		{"two stars at the end", Filter{KeyGlobs: []string{"a/**"}}, true},
		{"two stars alone", Filter{KeyGlobs: []string{"**"}}, true},
		{"a dot is a dot", Filter{KeyGlobs: []string{"a/é?jpg", "a/é.jp."}}, true},
		{"escaped", Filter{KeyGlobs: []string{`a/\*.jpg`}}, false},
		{"type", Filter{MimeTypes: []string{"image/jpeg"}}, true},
		{"family", Filter{MimeTypes: []string{"text/*", "image/*"}}, true},
		{"another type", Filter{MimeTypes: []string{"image/jpe"}}, false},
		{"variables", Filter{Vars: map[string]string{"uid": "7", "n": "12"}}, true},
		{"one variable differs", Filter{Vars: map[string]string{"uid": "7", "n": "1"}}, false},
		{"no such variable", Filter{Vars: map[string]string{"x": "7"}}, false},
		{"all parts", Filter{Buckets: []string{"photos"}, KeyPrefixes: []string{"a/"}, Vars: map[string]string{"uid": "7"}}, true},
		{"one part differs", Filter{Buckets: []string{"photos"}, KeyPrefixes: []string{"b/"}, Vars: map[string]string{"uid": "7"}}, false},
	} {
		if tt.filter.On == nil {
			tt.filter.On = []webhook.Kind{webhook.Recorded}
		}
		if got := tt.filter.matcher().matches(webhook.Recorded, e); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestFilterRejects(t *testing.T) {
	t.Parallel()
	many := make([]string, maxTerms+1)
	for i := range many {
		many[i] = strings.Repeat("k", i+1)
	}
	for _, tt := range []struct {
		name   string
		filter Filter
		want   error
		says   string
	}{
		{"kind", Filter{On: []webhook.Kind{"deleted"}}, ErrFilter, `on: "deleted" is not an event`},
		{"kind of samples", Filter{On: []webhook.Kind{webhook.Sample}}, ErrFilter, "on: "},
		{"kind twice", Filter{On: []webhook.Kind{webhook.Gone, webhook.Gone}}, ErrFilter, "on: gone is given twice"},
		{"bucket", Filter{Buckets: []string{"My_Bucket"}}, ossrule.ErrBucket, "buckets: "},
		{"bucket twice", Filter{Buckets: []string{"photos", "photos"}}, ErrFilter, "twice"},
		{"empty prefix", Filter{KeyPrefixes: []string{""}}, ErrFilter, "key_prefixes: a value is empty"},
		{"long prefix", Filter{KeyPrefixes: []string{strings.Repeat("k", 1025)}}, ErrFilter, "1025 bytes"},
		{"prefix with NUL", Filter{KeyPrefixes: []string{"a\x00"}}, ErrFilter, "NUL"},
		{"too many", Filter{KeyPrefixes: many}, ErrFilter, "more than 100"},
		{"open class", Filter{KeyGlobs: []string{"a[b"}}, ErrFilter, "key_globs: \"a[b\" is not a glob"},
		{"open alternatives", Filter{KeyGlobs: []string{"a{b,c"}}, ErrFilter, "is not a glob"},
		{"closing brace", Filter{KeyGlobs: []string{"a}b"}}, ErrFilter, "is not a glob"},
		{"empty class", Filter{KeyGlobs: []string{"a[]b"}}, ErrFilter, "is not a glob"},
		{"range backwards", Filter{KeyGlobs: []string{"[z-a]"}}, ErrFilter, "is not a glob"},
		{"slash in a class", Filter{KeyGlobs: []string{"[a/b]"}}, ErrFilter, "is not a glob"},
		{"lone backslash", Filter{KeyGlobs: []string{`a\`}}, ErrFilter, "is not a glob"},
		{"stars that are not alone", Filter{KeyGlobs: []string{"a/**.jpg"}}, ErrFilter, "alone between slashes"},
		{"no type", Filter{MimeTypes: []string{"image"}}, ErrFilter, "mime_types: \"image\" is not a MIME type"},
		{"all types", Filter{MimeTypes: []string{"*/*"}}, ErrFilter, "not a MIME type"},
		{"type with parameters", Filter{MimeTypes: []string{"text/html; charset=utf-8"}}, ErrFilter, "not a MIME type"},
		{"upper case", Filter{MimeTypes: []string{"Image/png"}}, ErrFilter, "not a MIME type"},
		{"variable with x:", Filter{Vars: map[string]string{"x:uid": "7"}}, ErrFilter,
			`vars: "x:uid": events hold custom variables without x:; write uid`},
		{"no name", Filter{Vars: map[string]string{"": "7"}}, ErrFilter, "vars: a variable has no name"},
		{"variable with NUL", Filter{Vars: map[string]string{"uid": "\x00"}}, ErrFilter, "vars: "},
	} {
		err := tt.filter.check()
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// FuzzGlob holds matching against what validation lets through: no glob that is accepted may
// panic or take long.
func FuzzGlob(f *testing.F) {
	f.Add("a/**/*.jpg", "a/b/c.jpg")
	f.Add("{a,b{c,d}}[^x-z]?", "bcq")
	f.Add(strings.Repeat("*a", 20), strings.Repeat("a", 60))
	f.Add(strings.Repeat("{a,*", 9)+strings.Repeat("}", 9), strings.Repeat("a", 60)+"/")
	f.Fuzz(func(t *testing.T, glob, key string) {
		if checkGlob(glob) != nil || len(key) > 1024 {
			return
		}
		e := anEvent()
		e.Callback.Object = key
		began := time.Now()
		matches := Filter{On: []webhook.Kind{webhook.Recorded}, KeyGlobs: []string{glob}}.matcher().matches(webhook.Recorded, e)
		if took := time.Since(began); took > time.Second {
			t.Errorf("matching took %v", took)
		}
		if !strings.ContainsAny(glob, `*?[]{}\`) && matches != (glob == key) {
			t.Errorf("matches is %v", matches)
		}
	})
}

func BenchmarkHundredFilters(b *testing.B) {
	filters := make([]*matcher, 100)
	for i := range filters {
		prefix := "tenant-" + strings.Repeat("x", i%7)
		filters[i] = Filter{On: []webhook.Kind{webhook.Recorded}, Buckets: []string{"photos"}, KeyPrefixes: []string{prefix}}.matcher()
	}
	e := anEvent()
	for b.Loop() {
		for i := range filters {
			if filters[i].matches(webhook.Recorded, e) {
				b.Fatal("matches")
			}
		}
	}
}

func anEvent() *event.Event {
	return &event.Event{
		ID: uuid.MustParse("11111111-2222-3333-4444-555555555555"), ReceivedAt: time.Date(2026, 11, 27, 8, 9, 10, 123456789, time.UTC),
		Callback: callbackspec.Callback{Bucket: "photos", Object: "a/é.jpg", MimeType: "image/jpeg", Size: new(int64(7)),
			Vars: map[string]json.RawMessage{"uid": json.RawMessage(`"7"`), "n": json.RawMessage(`12`)}},
	}
}

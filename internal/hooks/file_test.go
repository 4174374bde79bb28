package hooks

import (
	"errors"
	"strings"
	"testing"

	"upcall/internal/webhook"
)

func TestParseFileRejects(t *testing.T) {
	t.Parallel()
	good := webhook.NewSecret().Reveal()
	readSecret := func(path string) (string, error) {
		switch path {
		case "good":
			return good, nil
		case "bad":
			return "hunter2", nil
		}
		return "", errors.New("the file cannot be read")
	}
	const start = "hooks:\n  - name: app\n    url: https://app.example.com/\n"
	for _, tt := range []struct {
		name, text string
		want       error
		says       string
	}{
		{"nothing", "", ErrFile, "it declares no endpoint"},
		{"no endpoint", "hooks: []", ErrFile, "it declares no endpoint"},
		{"not YAML", "hooks: [", ErrFile, ""},
		{"another key", "hook: []", ErrFile, "hook"},
		{"unknown member", start + "    secret_file: good\n    prefix: a\n", ErrFile, "prefix"},
		{"a member twice", start + "    url: https://b.example.com/\n", ErrFile, "url"},
		{"two documents", start + "    secret_file: good\n---\nhooks: []\n", ErrFile, "second document"},
		{"wrong type", start + "    buckets: photos\n", ErrFile, ""},
		{"no name", "hooks:\n  - url: https://app.example.com/\n    secret_file: good\n", ErrName, "hooks[0].name: it is missing"},
		{"no secret", start, webhook.ErrSecret, "hooks[0].secret_file: it is missing"},
		{"bad secret", start + "    secret_file: bad\n", webhook.ErrSecret, "hooks[0].secret_file: the secret does not begin"},
		{"unreadable secret", start + "    secret_file: none\n", nil, "hooks[0].secret_file: the file cannot be read"},
		{"bad URL", "hooks:\n  - name: app\n    url: http://x/\n    secret_file: good\n", webhook.ErrURL, "hooks[0].url: it is plain http"},
		{"bad glob", start + "    secret_file: good\n    key_globs: ['a[']\n", ErrFilter, "hooks[0].key_globs: "},
		{"bad start", start + "    secret_file: good\n    from: later\n", ErrFrom, "hooks[0].from: "},
		{"the same name", start + "    secret_file: good\n" + strings.TrimPrefix(start, "hooks:\n") + "    secret_file: good\n", ErrExists,
			`hooks[1].name: "app" is declared twice`},
		{"too large", strings.Repeat("#", maxFile+1), ErrFile, "larger than"},
	} {
		_, err := ParseFile([]byte(tt.text), Rules{}, readSecret)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) ||
			strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("hooks:\n  - {name: app, url: 'https://x/', secret_file: s, vars: {a: b}}\n")
	f.Add("hooks: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		secret := webhook.NewSecret().Reveal()
		declared, err := ParseFile([]byte(text), Rules{}, func(string) (string, error) { return secret, nil })
		if err != nil {
			return
		}
		for _, d := range declared {
			if d.Name == "" || d.Settings.Check(Rules{}) != nil || d.Secret.IsZero() {
				t.Errorf("accepted %+v", d)
			}
		}
	})
}

// TestDeclare makes and changes endpoints, and does nothing when there is nothing to do.
func TestDeclare(t *testing.T) {
	t.Parallel()
	w, a := newWorld(t), newApp(t, nil)
	w.receiver(t)
	d := Declared{Settings: Settings{Name: "app", URL: a.URL, Filter: Filter{KeyPrefixes: []string{"a/"}}}, Secret: a.secret}
	declare := func() (version int64) {
		t.Helper()
		if err := w.Declare(t.Context(), []Declared{d}); err != nil {
			t.Fatal(err)
		}
		w.query(t, &version, "SELECT version FROM upcall.hook_changes")
		return version
	}
	first := declare()
	a.waitFor(t, w.upload(t, "a/", 3))
	if _, err := w.Pause(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if again := declare(); again != first+1 {
		t.Errorf("a second time it changes something: %d after %d", again, first)
	}
	d.KeyPrefixes = []string{"b/"}
	declare()
	e, err := w.Get(t.Context(), "app")
	if err != nil || e.State != Paused || e.KeyPrefixes[0] != "b/" {
		t.Errorf("%v: %+v", err, e)
	}
	d.Secret = webhook.NewSecret()
	declare()
	if e, err = w.Get(t.Context(), "app"); err != nil || e.RotatedUntil.IsZero() || e.secret.Reveal() != d.Secret.Reveal() {
		t.Errorf("%v: %v", err, e.RotatedUntil)
	}
}

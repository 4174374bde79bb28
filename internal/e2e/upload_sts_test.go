package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
)

// stsParts is how many parts the file has that is uploaded with short-lived credentials.
const stsParts = 8

// A slowWorld is a world whose parts take longer, all together, than its temporary credentials
// are valid.
type slowWorld struct {
	world
	file string

	mu    sync.Mutex
	took  []string // parts that OSS stored, in order
	begun int      // multipart uploads
	asked int      // for temporary credentials
	limit int      // how often those are given out
}

func newSlowWorld(t *testing.T) *slowWorld {
	t.Helper()
	toolchain.Need(t, "curl")
	programs(t) // which takes longer to build than the credentials are valid
	s := &slowWorld{world: newWorld(t), limit: 100}
	s.env["PATH"] = os.Getenv("PATH") // of the credentials process
	s.file = filepath.Join(t.TempDir(), "big.bin")
	if err := os.WriteFile(s.file, content(stsParts*102_400-1000), 0o600); err != nil {
		t.Fatal(err)
	}
	s.gate.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		switch {
		case r.Method == http.MethodPut:
			time.Sleep(700 * time.Millisecond) // what this is about is that time passes
			kept := &statusOf{w, 0}
			serve.ServeHTTP(kept, r)
			s.note(func() {
				if kept.status == http.StatusOK {
					s.took = append(s.took, ossfake.Kind(r))
				}
			})
			return
		case r.URL.Query().Has("uploads"):
			s.note(func() { s.begun++ })
		case strings.HasPrefix(r.URL.Path, "/_ossemu/sts"):
			over := false
			s.note(func() { s.asked++; over = s.asked > s.limit })
			if over {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		}
		serve.ServeHTTP(w, r)
	})
	return s
}

func (s *slowWorld) note(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
}

// A statusOf notes the status of an answer.
type statusOf struct {
	http.ResponseWriter
	status int
}

func (s *statusOf) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// sts is a command that prints temporary credentials.
func (s *slowWorld) sts(lifetime string) string {
	return fmt.Sprintf("curl -sSf -u %s:%s -X POST '%s/_ossemu/sts?duration=%s'", ossfake.AccessKeyID, ossfake.AccessKeySecret,
		s.gate.URL, lifetime)
}

// temporary returns temporary credentials for the environment.
func (s *slowWorld) temporary(t *testing.T, lifetime string) clitest.Env {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.emulator+"/_ossemu/sts?duration="+lifetime, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(ossfake.AccessKeyID, ossfake.AccessKeySecret)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var c struct{ AccessKeyId, AccessKeySecret, SecurityToken, Expiration string }
	if err := json.NewDecoder(response.Body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return clitest.Env{"OSS_ACCESS_KEY_ID": c.AccessKeyId, "OSS_ACCESS_KEY_SECRET": c.AccessKeySecret, "OSS_SESSION_TOKEN": c.SecurityToken}
}

// upload uploads the file, one part after another.
func (s *slowWorld) upload(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return execute(t, s.env, slices.Concat([]string{"upload", s.file, "--bucket", "demo", "--key", "sts.bin", "--part-size", "102400",
		"--parallel", "1", "--callback-url", s.receiver.URL + "/ok"}, args)...)
}

// done checks that one upload was begun, each part stored once, and the object reported once.
func (s *slowWorld) done(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	stored := slices.Sorted(slices.Values(s.took))
	if len(stored) != stsParts || len(slices.Compact(stored)) != stsParts || s.begun != 1 {
		t.Errorf("begun %d times, stored %v", s.begun, s.took)
	}
	if s.world.stored(t, "sts.bin") != string(content(stsParts*102_400-1000)) || s.openUploads(t) != 0 {
		t.Error("the object is not the file, or the upload is still open")
	}
	s.callback(t, "sts.bin")
}

// TestUploadOutlivesCredentials uploads for longer than the temporary credentials are valid, and
// gets new ones from a command.
func TestUploadOutlivesCredentials(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]string{
		"with an end":                     "cat",
		"without one":                     `sed 's/,"Expiration":"[^"]*"//'`,
		"with one that is a minute later": `sed "s/\"Expiration\":\"[^\"]*\"/\"Expiration\":\"$(date -u -d '+1 minute' +%FT%TZ)\"/"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSlowWorld(t)
			stdout, stderr, status := s.upload(t, "--credentials-process", s.sts("3s")+" | "+filter)
			if status != 0 || stdout != said(s.file) || !strings.Contains(stderr, "signed the rest of the upload again") {
				t.Fatalf("status %d: %s%s", status, stdout, stderr)
			}
			s.note(func() {
				if s.asked < 2 || s.asked > 12 {
					t.Errorf("asked %d times for credentials", s.asked)
				}
			})
			s.done(t)
		})
	}
}

// TestUploadWithoutFreshCredentials checks that the message names the credentials where there are
// no fresh ones, that the parts are kept, and that the same command goes on with others.
func TestUploadWithoutFreshCredentials(t *testing.T) {
	t.Parallel()
	const again = "with valid credentials, run the same command again, which sends only what is missing"
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, s *slowWorld) (args []string)
		says    string
	}{
		"environment": {func(t *testing.T, s *slowWorld) []string {
			maps.Copy(s.env, s.temporary(t, "5s"))
			return nil
		}, "the credentials have expired: get new ones (OSS_SESSION_TOKEN, "},
		"environment with an end": {func(t *testing.T, s *slowWorld) []string {
			maps.Copy(s.env, s.temporary(t, "5s"))
			return []string{"--sts-expiration", time.Now().Add(5 * time.Second).UTC().Format(time.RFC3339)}
		}, "credentials: have expired at "},
		"command that prints the same": {func(t *testing.T, s *slowWorld) []string {
			kept := filepath.Join(t.TempDir(), "kept")
			return []string{"--credentials-process", "test -e " + kept + " || " + s.sts("5s") + " > " + kept + "; cat " + kept}
		}, "credentials: have expired at "},
		"command that prints the same, without an end": {func(t *testing.T, s *slowWorld) []string {
			kept := filepath.Join(t.TempDir(), "kept")
			return []string{"--credentials-process",
				"test -e " + kept + " || " + s.sts("5s") + ` | sed 's/,"Expiration":"[^"]*"//' > ` + kept + "; cat " + kept}
		}, "the credentials have expired: get new ones (OSS_SESSION_TOKEN, "},
		"command that fails": {func(t *testing.T, s *slowWorld) []string {
			s.note(func() { s.limit = 1 })
			return []string{"--credentials-process", s.sts("5s")}
		}, "take credentials from the command: "},
		"file of profiles": {func(t *testing.T, s *slowWorld) []string {
			c := s.temporary(t, "5s")
			profile := fmt.Sprintf(`{"current":"a","profiles":[{"name":"a","mode":"StsToken",`+
				`"access_key_id":%q,"access_key_secret":%q,"sts_token":%q}]}`,
				c["OSS_ACCESS_KEY_ID"], c["OSS_ACCESS_KEY_SECRET"], c["OSS_SESSION_TOKEN"])
			return []string{"--credentials-file", clitest.WriteFile(t, "config.json", profile)}
		}, "the credentials have expired: get new ones (OSS_SESSION_TOKEN, --profile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSlowWorld(t)
			stdout, stderr, status := s.upload(t, tt.arrange(t, s)...)
			if status != 1 || stdout != "" || !strings.Contains(stderr, tt.says) || strings.Count(stderr, again) != 1 {
				t.Fatalf("status %d: %s%s", status, stdout, stderr)
			}
			s.note(func() {
				if s.openUploads(t) != 1 || len(s.took) == 0 || len(s.receiver.Callbacks()) != 0 {
					t.Fatalf("%d open uploads, stored %v", s.openUploads(t), s.took)
				}
				s.limit = 100
			})
			// The credentials are not what identifies the upload.
			stdout, stderr, status = s.upload(t, "--credentials-process", s.sts("1m"))
			if status != 0 || stdout != said(s.file) || !strings.Contains(stderr, "were there already") {
				t.Fatalf("status %d: %s%s", status, stdout, stderr)
			}
			s.done(t)
		})
	}
}

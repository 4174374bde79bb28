package event_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPlaces checks that a new field of events has to be added in six places only, by the
// example of image_width.
func TestPlaces(t *testing.T) {
	t.Parallel()
	want := map[string]bool{
		"internal/callbackspec/callback.go":    true, // OSS's name for it, and its Go field
		"internal/api/openapi.yaml":            true, // and for those that read the log
		"internal/event/columns.go":            true, // its column
		"internal/issueapi/openapi.yaml":       true, // its description for applications
		"migrations/0001_upload_events.up.sql": true, // the migration that makes the column
		"migrations/views/02_upload_log.sql":   true, // the view that analysts read
	}
	// These simulate OSS or a receiver of others, show a few columns, try the names that templates of others have, or are for tests.
	others := map[string]bool{"cmd/bench/sample.go": true, "cmd/demo/show.go": true, "internal/loadgen/callbacks.go": true, "internal/ossemu/image.go": true,
		"internal/doctor/restored.go": true, "internal/sample/upload.go": true, "internal/testing/fallbacktest/fallbacktest.go": true}
	probe := regexp.MustCompile(`(?i)image_?width|imageInfo\.width`)
	got := make(map[string]bool)
	module := os.DirFS("../..")
	err := fs.WalkDir(module, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && name != "." || name == "docs" || entry.Name() == "testdata" ||
			name == "bin" || name == "dist"): // programs
			return fs.SkipDir
		case entry.IsDir() || strings.HasSuffix(name, "_test.go") || path.Ext(name) == ".md" || others[name]:
			return nil
		}
		content, err := fs.ReadFile(module, name)
		if probe.Match(content) {
			got[name] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files that name a field (-want +got):\n%s", diff)
	}
}

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

// TestPlaces: a field that is added to events is written down in four places, and all else
// is made from them. image_width stands for any field.
func TestPlaces(t *testing.T) {
	t.Parallel()
	want := map[string]bool{
		"internal/callbackspec/callback.go":    true, // what OSS calls it, and where it goes
		"internal/event/columns.go":            true, // its column
		"internal/issueapi/openapi.yaml":       true, // what applications read of it
		"migrations/0001_upload_events.up.sql": true, // a migration that makes the column
	}
	// These play OSS, or show people a few columns of their choice.
	others := map[string]bool{"cmd/demo/show.go": true, "internal/loadgen/callbacks.go": true, "internal/ossemu/image.go": true}
	probe := regexp.MustCompile(`(?i)image_?width|imageInfo\.width`)
	got := make(map[string]bool)
	module := os.DirFS("../..")
	err := fs.WalkDir(module, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && name != "." || name == "docs" || entry.Name() == "testdata"):
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
		t.Errorf("where a field stands (-want +got):\n%s", diff)
	}
}

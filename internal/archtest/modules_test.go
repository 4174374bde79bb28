package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestModules holds that what only the chart's tests need is in a module of its own, that there is no other, and that make
// test runs its tests, which go test ./... passes over.
func TestModules(t *testing.T) {
	t.Parallel()
	var modules []string
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules"):
			return fs.SkipDir
		case entry.Name() == "go.mod":
			modules = append(modules, filepath.ToSlash(filepath.Dir(path)))
		}
		return nil
	})
	if want := []string{"../../deploy/helm", "../.."}; err != nil || !slices.Equal(modules, want) {
		t.Errorf("modules: %v, %v; want %v", modules, err, want)
	}
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, library := range []string{"helm.sh/", "k8s.io/"} {
		if strings.Contains(string(text), library) {
			t.Errorf("go.mod requires %s…: deploy/helm/go.mod is for that", library)
		}
	}
	if text, err = os.ReadFile("../../Makefile"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n\tcd deploy/helm && go vet ./... && go test ") {
		t.Error("make test does not run the tests of deploy/helm")
	}
}

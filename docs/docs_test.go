// Package docs_test runs what the documentation tells people to run.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
)

var (
	fenced = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	linked = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// pages returns the text of every page by its path from the top of the tree.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	examples, err := filepath.Glob("../examples/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Concat(paths, more, examples) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[path] = string(text)
	}
	if found["../README.md"] == "" {
		t.Fatal("no README.md was found; nothing would be tested")
	}
	return found
}

// TestQueries runs every SQL block.
func TestQueries(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	queries := 0
	for path, text := range pages(t) {
		for _, block := range fenced.FindAllStringSubmatch(text, -1) {
			if block[1] != "sql" {
				continue
			}
			queries++
			if _, err := pool.Exec(t.Context(), block[2]); err != nil {
				t.Errorf("%s: %v in\n%s", path, err, block[2])
			}
		}
	}
	if queries == 0 {
		t.Error("no SQL block was found")
	}
}

// TestLinks holds that each relative link leads to a file.
func TestLinks(t *testing.T) {
	t.Parallel()
	for path, text := range pages(t) {
		for _, link := range linked.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), link[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", path, link[1])
			}
		}
	}
}

// TestMakeTargets holds that make knows each target that the pages name.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`?make ([a-z-]+)`?")
	for path, text := range pages(t) {
		for _, target := range named.FindAllStringSubmatch(text, -1) {
			inCode := strings.Contains(text, "`make "+target[1]+"`") || strings.Contains(text, "\nmake "+target[1])
			if inCode && !strings.Contains(string(makefile), "\n"+target[1]+": ##") {
				t.Errorf("%s names make %s, which the Makefile does not have", path, target[1])
			}
		}
	}
}

// TestCompose holds that each port of the host can be changed, and that uploads from within use
// addresses that are there.
func TestCompose(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	ports := 0
	for line := range strings.Lines(string(text)) {
		_, list, found := strings.Cut(line, "ports:")
		if !found {
			continue
		}
		for _, port := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(list, -1) {
			ports++
			if !regexp.MustCompile(`^127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:(\d+|\$\{OSSEMU_PORT:-9000\})$`).MatchString(port[1]) {
				t.Errorf("the port %s is fixed, or not on loopback", port[1])
			}
		}
	}
	_, uploader, found := strings.Cut(string(text), "\n  uploader:\n")
	if ports != 4 || !found || !strings.Contains(uploader, "OSS_ENDPOINT: http://ossemu:${OSSEMU_PORT:-9000}\n") ||
		!strings.Contains(uploader, `UPCALL_PATH_STYLE: "true"`) { // there is no host demo.ossemu
		t.Errorf("%d ports; uploader: %s", ports, uploader)
	}
	if !strings.Contains(string(text), "OSS_ENDPOINT: http://127.0.0.1:${OSSEMU_PORT:-9000}") {
		t.Error("URLs for the host are not for the port of the host")
	}
}

// TestMetrics holds that a page names each metric of the programs.
func TestMetrics(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for _, page := range pages(t) {
		text.WriteString(page)
	}
	named := regexp.MustCompile(`(?:Name: *|NewDesc\()"(upcall_[a-z0-9_]+)"`)
	found := 0
	err := filepath.WalkDir("../internal", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, metric := range named.FindAllStringSubmatch(string(source), -1) {
			if found++; !strings.Contains(text.String(), metric[1]) {
				t.Errorf("%s makes %s, which no page names", path, metric[1])
			}
		}
		return err
	})
	if err != nil || found < 30 {
		t.Errorf("found %d metrics, %v", found, err)
	}
}

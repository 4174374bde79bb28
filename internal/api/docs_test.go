package api

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"upcall/internal/testing/toolchain"
)

// blocks returns the blocks of docs/api.md in a language.
func blocks(t *testing.T, language string) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		all = append(all, found[1])
	}
	if len(all) == 0 {
		t.Fatalf("docs/api.md has nothing in %s", language)
	}
	return all
}

// TestDocumentedCommands runs the commands of docs/api.md.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "jq"} {
		toolchain.Need(t, tool)
	}
	w := newWorld(t, nil)
	w.add(t, "photos", 2)
	wants := []string{`{"events":[{"event_id":`, "", "event: upload\ndata: {", `{"uploads":[`, `"name":"app"`, `{"idle":true}`}
	commands := blocks(t, "sh")
	if len(commands) != len(wants) {
		t.Fatalf("%d blocks, and results for %d", len(commands), len(wants))
	}
	for i, command := range commands {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", command)
		cmd.Env = append(os.Environ(), "API="+w.url, "KEY="+w.operator)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), wants[i]) || strings.Contains(string(out), "urn:upcall:problem") {
			t.Errorf("%v: %s\nprinted\n%s", err, command, out)
		}
		if i == 1 && len(out) != 0 {
			t.Errorf("from now on: %s", out)
		}
	}
	if got := w.call(t, http.MethodGet, "/v1/hooks", w.viewer, ""); got.text != `{"hooks":[]}` {
		t.Errorf("after the commands: %s", got.text)
	}
}

package e2e

import (
	"strings"
	"testing"
)

// TestLostCallbacksPage runs the page's commands with a receiver that is notified.
func TestLostCallbacksPage(t *testing.T) {
	t.Parallel()
	w := newLostWorld(t)
	viewer := strings.TrimSpace(w.receiver(t, "keys", "add", "--role", "viewer", "--id", "page"))
	dir := t.TempDir()
	runPage(t, "../../docs/lost-callbacks.md", dir, 4, append(w.env,
		"UPCALL_CALLBACK_URL=http://"+w.public+"/oss/callback", "UPCALL_STATE_DIR="+dir, "KEY="+viewer, "API=http://"+w.admin)...)
}

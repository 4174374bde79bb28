package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
)

// entered returns the uploads in the ledger, the oldest first. It checks their times.
func entered(t *testing.T, databaseURL string) []eventstore.IssuedUpload {
	t.Helper()
	pool, err := eventstore.Open(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	rows, err := pool.Query(t.Context(), "SELECT upload_id FROM upcall.issued_uploads ORDER BY issued_at")
	if err != nil {
		t.Fatal(err)
	}
	var ids []uuid.UUID
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	var uploads []eventstore.IssuedUpload
	for _, id := range ids {
		found, err := eventstore.NewUploads(pool).Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if lives := found.ExpiresAt.Sub(found.IssuedAt); found.Status != eventstore.StatusIssued ||
			time.Since(found.IssuedAt) > time.Hour || lives < 29*time.Minute || lives > 31*time.Minute {
			t.Errorf("got %+v, want it issued for half an hour", found)
		}
		found.IssuedAt, found.ExpiresAt = time.Time{}, time.Time{}
		uploads = append(uploads, found.IssuedUpload)
	}
	return uploads
}

// TestLedger checks that every command that issues an upload leaves a row.
func TestLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	database := dbtest.URL(t)
	w.env["UPCALL_DATABASE_URL_FILE"] = clitest.WriteFile(t, "url", database+"\n")
	w.env["UPCALL_EXPIRES"] = "30m"
	small, large := clitest.WriteFile(t, "small.txt", "small"), clitest.WriteFile(t, "large.bin", string(content(300_000)))

	cat := put(t, w.env, "--bucket", "demo", "--key", "cat.jpg", "--content-type", "image/jpeg", "--content-length", "5",
		"--callback-url", w.receiver.URL+"/oss/callback", "--var", "uid=42", "--var", "note=a=b")
	bare := put(t, w.env, "--bucket", "demo", "--key", "bare")
	parts, _ := w.create(t, "--size", "300000", "--part-size", "102400")
	for _, name := range []string{small, large} {
		_, stderr, status := execute(t, w.env, "upload", name, "--bucket", "demo", "--key", "up/", "--part-size", "102400")
		if status != 0 {
			t.Fatalf("status %d: %s", status, stderr)
		}
	}

	got := entered(t, database)
	if len(got) != 5 {
		t.Fatalf("got %+v, want 5 rows", got)
	}
	if got[4].OSSUploadID == "" || got[3].ID == got[4].ID {
		t.Errorf("got %+v", got[3:])
	}
	want := []eventstore.IssuedUpload{
		{ID: cat.ID, Bucket: "demo", Object: "cat.jpg", ContentType: "image/jpeg", Size: new(int64(5)),
			Vars: map[string]string{"uid": "42", "note": "a=b"}},
		{ID: bare.ID, Bucket: "demo", Object: "bare", Vars: map[string]string{}},
		{ID: parts.ID, Bucket: "demo", Object: "video.mp4", Size: new(int64(300_000)), Vars: map[string]string{},
			OSSUploadID: parts.OSSUploadID},
		{ID: got[3].ID, Bucket: "demo", Object: "up/small.txt", Size: new(int64(5)), Vars: map[string]string{}},
		{ID: got[4].ID, Bucket: "demo", Object: "up/large.bin", Size: new(int64(300_000)), Vars: map[string]string{},
			OSSUploadID: got[4].OSSUploadID},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLedgerRefused checks that nothing is issued if the ledger cannot be written.
func TestLedgerRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	small, large := clitest.WriteFile(t, "small.txt", "small"), clitest.WriteFile(t, "large.bin", string(content(300_000)))
	manifest := filepath.Join(t.TempDir(), "manifest.json")
	commands := map[string][]string{
		"put":              {"put", "--bucket", "demo", "--key", "a"},
		"put as curl":      {"put", "--bucket", "demo", "--key", "a", "--format", "curl"},
		"multipart create": {"multipart", "create", "--bucket", "demo", "--key", "a", "--size", "300000", "--manifest", manifest},
		"upload":           {"upload", small, "--bucket", "demo", "--key", "a"},
		"upload in parts":  {"upload", large, "--bucket", "demo", "--key", "a", "--part-size", "102400"},
	}
	databases := []struct {
		name, url string
		status    int
		want      string
	}{
		{"no URL", "postgres://u:hunter2@:x/", 2, "UPCALL_DATABASE_URL: database URL is not valid"},
		{"embedded", "embedded", 2, "embedded is a PostgreSQL within the receiver"},
		{"unreachable", "postgres://u:hunter2@127.0.0.1:1/d", 1, "127.0.0.1"},
		{"without a schema", dbtest.Empty(t), 1, "receiver migrate up"},
	}
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		for _, database := range databases {
			env := maps.Clone(w.env)
			env["UPCALL_DATABASE_URL"] = database.url
			stdout, stderr, status := execute(t, env, commands[name]...)
			if status != database.status || stdout != "" || !strings.Contains(stderr, database.want) ||
				strings.Contains(stderr, "hunter2") ||
				status == 1 && !strings.Contains(stderr, "unset UPCALL_DATABASE_URL") {
				t.Errorf("%s, database %s: status %d: %q %q", name, database.name, status, stdout, stderr)
			}
		}
	}
	if n := w.openUploads(t); n != 0 {
		t.Errorf("%d uploads are open", n)
	}
	if _, err := os.Stat(manifest); !os.IsNotExist(err) {
		t.Errorf("the manifest's file was not removed: %v", err)
	}
	if len(w.receiver.Callbacks()) != 0 {
		t.Errorf("%d callbacks came", len(w.receiver.Callbacks()))
	}

	// Both variables are set, and there is another mistake.
	env := maps.Clone(w.env)
	env["UPCALL_DATABASE_URL"], env["UPCALL_DATABASE_URL_FILE"] = "postgres://127.0.0.1:1/d", small
	if _, stderr, status := execute(t, env, "put", "--bucket", "Demo", "--key", "a"); status != 2 || strings.Count(stderr, "\n") != 2 ||
		!strings.Contains(stderr, "set one of them only") || !strings.Contains(stderr, "bucket:") {
		t.Errorf("status %d: %s", status, stderr)
	}
	// DATABASE_URL, which may belong to another program, is ignored.
	env = maps.Clone(w.env)
	env["DATABASE_URL"] = "postgres://u:hunter2@127.0.0.1:1/d"
	stdout, stderr, status := execute(t, env, "put", "--bucket", "demo", "--key", "a", "--format", "json")
	if status != 0 || stderr != "" || !json.Valid([]byte(stdout)) {
		t.Errorf("status %d: %s", status, stderr)
	}
}

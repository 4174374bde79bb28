package export

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/duckdb"
	"upcall/internal/testing/toolchain"
)

// pageBlocks returns what docs/scale.md has for DuckDB, with the directories of a test.
func pageBlocks(t *testing.T, recent, history string) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	replace := strings.NewReplacer("/data/recent", recent, "/data/history", history, "day=2026-06-01", "day="+old().Format(time.DateOnly))
	for _, block := range regexp.MustCompile("(?ms)^```duckdb\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		blocks = append(blocks, replace.Replace(block[1]))
	}
	if len(blocks) != 4 {
		t.Fatalf("the page has %d blocks for DuckDB, and this test knows 4", len(blocks))
	}
	return blocks
}

// handedOnly hands the oldest month over, and leaves it.
func (w *handWorld) handedOnly(t *testing.T) {
	t.Helper()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	keeper := &between{Keeper: w.keeper(t), after: func(int) { cancel(stop) }}
	if _, err := eventstore.DropKept(ctx, w.pool, time.Now(), keptDays, keeper); err == nil {
		t.Fatal("it was dropped")
	}
}

// TestScalePage queries history and PostgreSQL together as docs/scale.md says, while they have events in common, and
// then erases from the history.
func TestScalePage(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	first, second := old(), old().AddDate(0, 1, 0)
	w := handLocal(t, oldEvents(first)...)
	// An upload of which a notification told at the end of the first month, and its callback in the second.
	found, callback := full(second.Add(-time.Second)), full(second.Add(time.Second))
	found.Source, callback.UploadID, callback.Callback.RequestID = event.SourceNotification, found.UploadID, "another"
	callback.Supersedes = uuid.NullUUID{UUID: found.ID, Valid: true}
	w.add(t, append(oldEvents(second), found, callback)...)
	_, err := w.pool.Exec(t.Context(), `INSERT INTO upcall.recovered_uploads (event_id, received_at, source, upload_id, etag)
		VALUES ($1, $2, 'notification', $3, 'D8E8')`, found.ID, found.ReceivedAt, found.UploadID)
	if err != nil {
		t.Fatal(err)
	}
	w.drop(t)
	w.handedOnly(t)
	w.add(t, full(first.AddDate(0, 0, 9))) // late, and in PostgreSQL alone

	recent := t.TempDir()
	runAll(t, Config{Source: pages(t, w.pool), Target: Local(recent), Format: formatNamed(t, "parquet"), Now: time.Now})
	db, blocks := duckdb.Open(t), pageBlocks(t, recent, w.dir)
	for statement := range strings.SplitSeq(strings.TrimSpace(blocks[0]), ";") {
		if strings.TrimSpace(statement) != "" {
			db.Query(t, statement)
		}
	}
	setting, months, _ := strings.Cut(blocks[1], ";")
	db.Query(t, setting)
	var lines []string
	for _, row := range db.Query(t, months).Rows {
		lines = append(lines, fmt.Sprintf("%.7s %v %v", fmt.Sprint(row[0]), row[1], row[2]))
	}
	month := func(begins time.Time, bucket string, n int) string {
		return fmt.Sprintf("%s %s %d", begins.Format("2006-01"), bucket, n)
	}
	want := []string{month(first, "demo", 4), month(first, "<nil>", 42), month(second, "demo", 4), month(second, "<nil>", 42)}
	if !slices.Equal(lines, want) {
		t.Errorf("uploads by month and bucket are %q, want %q", lines, want)
	}

	files := db.Query(t, blocks[2]).Rows
	day := filepath.Join(w.dir, "day="+first.Format(time.DateOnly))
	if len(files) != 4 || !slices.ContainsFunc(files, func(row []any) bool { return row[0] == filepath.Join(day, "part-0.parquet") }) {
		t.Errorf("the user's uploads are in %v", files)
	}
	db.Query(t, blocks[3])
	if err := os.Rename(filepath.Join(day, "part-0.new"), filepath.Join(day, "part-0.parquet")); err != nil {
		t.Fatal(err)
	}
	if files := db.Query(t, blocks[2]).Rows; len(files) != 3 {
		t.Errorf("after it was erased on one day, the user's uploads are in %v", files)
	}
	for id, line := range w.want {
		if e, err := event.Parse([]byte(line)); err == nil && e.ReceivedAt.Before(first.AddDate(0, 0, 1)) {
			e.Erase()
			w.want[id] = lineOf(t, e)
		}
	}
	w.add(t, full(first.Add(time.Hour))) // comes to the day whose file was written again
	w.drop(t)
	w.wantAll(t)
	if n := len(w.inFiles(t)); n != len(w.want) {
		t.Errorf("%d events were handed over, want %d", n, len(w.want))
	}
}

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/sample"
	"upcall/internal/testing/duckdb"
	"upcall/internal/testing/toolchain"
)

// exportVariable names a database to export instead of a small one.
const exportVariable = "UPCALL_TEST_EXPORT_URL"

// mostExportMemory is the most that an export may take, of however many events.
const mostExportMemory = 100_000_000

// sums are compared between PostgreSQL and DuckDB.
const sums = `SELECT count(*)::text, sum(size)::text, sum(crc64%s)::text, count(DISTINCT object_key)::text, count(DISTINCT %s)::text,
	sum(image_width)::text, count(upload_id)::text, min(received_at)::text, max(received_at)::text FROM %s`

// TestExport exports a database to a directory in each format with a program built without the race
// detector, which needs memory itself. It does not run in parallel with other tests, because it keeps
// every processor busy.
func TestExport(t *testing.T) {
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	url, since := os.Getenv(exportVariable), "2000-01-01"
	if url == "" {
		since = "2026-10-10" // each day is a file, which takes time to reach the disk
		pool := dbtest.Pool(t, eventstore.Open)
		url = pool.Config().ConnString()
		err := sample.Fill(t.Context(), sample.Config{Pool: pool, Feed: dbtest.Beside(t, pool, eventstore.OpenFeed),
			Events: 4000, Seed: 7, Until: time.Date(2026, 10, 31, 16, 0, 0, 0, time.UTC)})
		if err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "receiver")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "upcall/cmd/receiver").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	want := postgresSums(t, url, since)
	db := duckdb.Open(t)
	for _, tt := range []struct{ format, from string }{
		{"parquet", "read_parquet('%s/*/*.parquet', hive_partitioning = false)"},
		{"csv", "read_csv('%s/*/*.csv', hive_partitioning = false, " +
			"types = {'crc64': 'UBIGINT', 'received_at': 'TIMESTAMPTZ', 'vars': 'VARCHAR'})"},
		{"jsonl", "read_ndjson('%s/*/*.jsonl', hive_partitioning = false, columns = {event_id: 'UUID', received_at: 'TIMESTAMPTZ', " +
			"object_key: 'VARCHAR', size: 'BIGINT', image_width: 'INTEGER', crc64: 'UBIGINT', upload_id: 'UUID'})"},
	} {
		t.Run(tt.format, func(t *testing.T) {
			dir := t.TempDir()
			took, peak := runMeasured(t, program, url, "export", "--format", tt.format, "--since", since, "--out", dir)
			files, bytes := filesIn(t, dir, tt.format)
			rows, err := strconv.ParseFloat(want[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s events in %s, %.0f a second; %d files, %d bytes; peak memory %.1f MB", tt.format, want[0],
				took.Round(time.Second/10), rows/took.Seconds(), files, bytes, float64(peak)/1e6)
			if peak == 0 || peak > mostExportMemory {
				t.Errorf("%d bytes of memory, want at most %d", peak, int64(mostExportMemory))
			}
			from := fmt.Sprintf(tt.from, dir)
			sql := fmt.Sprintf("SET timezone = 'UTC'; "+sums, "::HUGEINT", "event_id", from)
			got := db.Query(t, strings.ReplaceAll(sql, "sum(size)", "sum(size::HUGEINT)")).Rows[0]
			var texts []string
			for _, value := range got {
				texts = append(texts, fmt.Sprint(value))
			}
			if diff := cmp.Diff(want, texts); diff != "" {
				t.Errorf("sums of PostgreSQL (-) and DuckDB (+):\n%s", diff)
			}
		})
	}
	t.Logf("the same in PostgreSQL and DuckDB: %s events, %s bytes, %s as the sum of CRC-64, %s keys", want[0], want[1], want[2], want[3])
}

// postgresSums returns sums over the events of a database.
func postgresSums(t *testing.T, url, since string) (got []string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	results, err := conn.PgConn().Exec(t.Context(), "SET timezone = 'UTC'; "+fmt.Sprintf(sums, "", "id",
		"upcall.upload_events WHERE received_at >= '"+since+" 00:00Z'")).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range results[1].Rows[0] {
		got = append(got, string(value))
	}
	if got[0] == "0" || slices.Contains(got, "") {
		t.Fatalf("there is nothing to compare: %q", got)
	}
	return got
}

// runMeasured runs a receiver's command, and returns how long it took and the peak memory in bytes.
func runMeasured(t *testing.T, program, url string, args ...string) (took time.Duration, peak int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "UPCALL_DATABASE_URL="+url)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%v\n%s", err, &output)
			}
			return time.Since(began), peak
		case <-ticker.C:
			peak = max(peak, currentPeak(cmd.Process.Pid))
		}
	}
}

// currentPeak returns the peak memory of a process until now; 0 if it has ended.
func currentPeak(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	text, _, _ := strings.Cut(rest, " kB")
	kilobytes, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64) // absent from a process that ends
	return kilobytes << 10
}

// filesIn returns how many files of a format there are, and their bytes.
func filesIn(t *testing.T, dir, format string) (files int, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != "."+format {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		files, bytes = files+1, bytes+info.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, bytes
}

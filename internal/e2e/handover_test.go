package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/duckdb"
	"upcall/internal/testing/toolchain"
)

// handOverVariable says how many events the month has that is handed over.
const handOverVariable = "UPCALL_TEST_HANDOVER"

// mostHandOverMemory is the most that handing over a month may take, of however many events.
const mostHandOverMemory = 128 << 20

// TestHandOver hands a month over with receiver maintain, and holds the sums of DuckDB against those of PostgreSQL
// before. It does not run in parallel with other tests, because it keeps every processor busy.
func TestHandOver(t *testing.T) {
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	rows := 20_000
	if given := os.Getenv(handOverVariable); given != "" {
		var err error
		if rows, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	pool := dbtest.Pool(t, eventstore.Open)
	url, now := pool.Config().ConnString(), time.Now().UTC()
	begins := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, -4, 0)
	fillMonth(t, url, begins, rows)
	want := postgresSums(t, url, begins.Format(time.DateOnly))
	program, dir := filepath.Join(t.TempDir(), "receiver"), t.TempDir()
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "upcall/cmd/receiver").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	took, peak := runMeasured(t, program, url, "maintain", "--retention", "40d", "--retention-export", dir)
	files, bytes := filesIn(t, dir, "parquet")
	t.Logf("%d events written, read back twice and dropped in %s, %.0f a second; %d files, %d bytes; peak memory %.1f MB", rows,
		took.Round(time.Second/10), float64(rows)/took.Seconds(), files, bytes, float64(peak)/1e6)
	if peak == 0 || peak > mostHandOverMemory {
		t.Errorf("%d bytes of memory, want at most %d", peak, int64(mostHandOverMemory))
	}
	var left int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.upload_events").Scan(&left); err != nil || left > 0 {
		t.Errorf("%d events are left, %v", left, err)
	}
	sql := fmt.Sprintf("SET timezone = 'UTC'; "+sums, "::HUGEINT", "event_id",
		"read_parquet('"+dir+"/*/*.parquet', hive_partitioning = false)")
	var texts []string
	for _, value := range duckdb.Open(t).Query(t, strings.ReplaceAll(sql, "sum(size)", "sum(size::HUGEINT)")).Rows[0] {
		texts = append(texts, fmt.Sprint(value))
	}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("sums of PostgreSQL (-) and DuckDB (+):\n%s", diff)
	}
}

// fillMonth makes a month of events as uploads of an application are, with keys and variables of their own.
func fillMonth(t *testing.T, url string, begins time.Time, rows int) {
	t.Helper()
	name := begins.Format("upcall.upload_events_2006_01")
	const bound = "2006-01-02 15:04:05+00"
	dbtest.Execute(t, url, fmt.Sprintf(`CREATE TABLE %[1]s (LIKE upcall.upload_events INCLUDING ALL);
		ALTER TABLE upcall.upload_events ATTACH PARTITION %[1]s FOR VALUES FROM ('%[2]s') TO ('%[3]s')`,
		name, begins.Format(bound), begins.AddDate(0, 1, 0).Format(bound)))
	const step = 100_000
	for from := 0; from < rows; from += step {
		dbtest.Execute(t, url, fmt.Sprintf(`INSERT INTO upcall.upload_events (id, received_at, bucket, object_key, etag, size, mime_type,
				image_width, image_height, image_format, crc64, content_md5, client_ip, request_id, operation, upload_id, vars, source)
			SELECT md5('id' || i)::uuid, '%s'::timestamptz + i * (interval '27 days' / %d), 'photos',
				'users/' || i %% 9973 || '/2026/' || md5('key' || i) || '.jpg', upper(md5('etag' || i)), 1000 + i %% 5000000, 'image/jpeg',
				1024, 768, 'jpg', ('x' || left(md5('crc' || i), 15))::bit(60)::bigint, left(md5('md5' || i), 22) || '==',
				('10.' || i %% 250 || '.' || i %% 240 || '.' || i %% 230)::inet, upper(left(md5('request' || i), 24)), 'PutObject',
				md5('upload' || i)::uuid, jsonb_build_object('uid', (i %% 9973)::text, 'order', md5('order' || i)), 'callback'
			FROM generate_series(%d, %d) AS i`, begins.Format(bound), rows, from, min(from+step, rows)-1))
	}
}

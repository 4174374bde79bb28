package export

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/event"
	"upcall/internal/testing/duckdb"
	"upcall/internal/testing/toolchain"
)

// oddities are events whose texts trip readers and writers of CSV.
func oddities() []*event.Event {
	at := day.Add(23*time.Hour + 59*time.Minute + 59*time.Second + 999999*time.Microsecond)
	huge := full(at)
	huge.Callback.Vars["note"] = fmt.Appendf(nil, "%q", strings.Repeat("x, \\\"y\\\"", 100_000))
	empty := full(at.AddDate(0, 0, 1))
	empty.Callback.Vars["empty"], empty.Callback.Vars["null"] = []byte(`""`), []byte("null")
	events := []*event.Event{full(day), bare(day), huge, empty}
	for i, key := range []string{"a,b", `say "hi"`, "line\nfeed", "return\r\nfeed\rreturn", " space ", `\.`, "null", "NULL", `""`, `"`,
		"=cmd|' /C calc'!A0", "\ttab", "-1", "\u2028", "a\x01b", "'", ";", "#x", "日本語", strings.Repeat("長", 341)} {
		events = append(events, keyed(day.AddDate(0, 0, 2).Add(time.Duration(i)*time.Microsecond), key))
	}
	return events
}

// types are DuckDB's for Parquet.
var types = map[string]string{
	"event_id": "UUID", "received_at": "TIMESTAMP WITH TIME ZONE", "bucket": "VARCHAR", "object_key": "VARCHAR", "etag": "VARCHAR",
	"size": "BIGINT", "mime_type": "VARCHAR", "image_width": "INTEGER", "image_height": "INTEGER", "image_format": "VARCHAR",
	"crc64": "UBIGINT", "content_md5": "VARCHAR", "vpc_id": "VARCHAR", "client_ip": "VARCHAR", "request_id": "VARCHAR",
	"operation": "VARCHAR", "upload_id": "UUID", "vars": "JSON", "source": "VARCHAR", "supersedes": "UUID",
}

// TestDuckDB reads each format back by DuckDB, and compares types and values.
func TestDuckDB(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	events := oddities()
	pool := database(t, events...)
	source := pages(t, pool)
	db := duckdb.Open(t)
	members := jsonMembers(t)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(types)), slices.Sorted(slices.Values(members))); diff != "" {
		t.Fatalf("columns of the table of types (-) and of an event's JSON (+):\n%s", diff)
	}
	var expected []map[string]any
	for _, e := range events {
		expected = append(expected, valuesOf(t, e))
	}
	for _, tt := range []struct {
		format, from string
		types        map[string]string
	}{
		{"parquet", "read_parquet('%s/*/*.parquet', hive_partitioning = false)", types},
		{"csv", "read_csv('%s/*/*.csv', hive_partitioning = false, all_varchar = true)", nil},
		{"csv", "read_csv('%s/*/*.csv', hive_partitioning = false, types = {'crc64': 'UBIGINT', 'event_id': 'UUID'})",
			map[string]string{"crc64": "UBIGINT", "event_id": "UUID"}},
		{"jsonl", "read_ndjson('%s/*/*.jsonl', hive_partitioning = false, maximum_object_size = 10000000, " +
			"columns = {event_id: 'UUID', received_at: 'TIMESTAMP', object_key: 'VARCHAR', crc64: 'UBIGINT', vars: 'JSON'})",
			map[string]string{"event_id": "UUID", "received_at": "TIMESTAMP", "object_key": "VARCHAR", "crc64": "UBIGINT", "vars": "JSON"}},
	} {
		t.Run(tt.from, func(t *testing.T) {
			dir := t.TempDir()
			got := runAll(t, Config{Source: source, Target: Local(dir), Format: formatNamed(t, tt.format), Now: now})
			if got.Rows != int64(len(events)) {
				t.Errorf("exported %d rows of %d", got.Rows, len(events))
			}
			from := fmt.Sprintf(tt.from, dir)
			var described duckdb.Result
			for _, row := range db.Query(t, "DESCRIBE SELECT * FROM "+from).Rows {
				name, kind := fmt.Sprint(row[0]), fmt.Sprint(row[1])
				described.Names, described.Types = append(described.Names, name), append(described.Types, kind)
				if want := tt.types[name]; want != "" && kind != want {
					t.Errorf("%s is %s, want %s", name, kind, want)
				}
			}
			if tt.format != "jsonl" && !slices.Equal(described.Names, members) {
				t.Errorf("columns are %v", described.Names)
			}
			compare(t, db, from, described, expected)
		})
	}
}

// compare holds the rows that DuckDB reads against the values of events.
func compare(t *testing.T, db *duckdb.DB, from string, described duckdb.Result, expected []map[string]any) {
	t.Helper()
	var columns []string
	for i, name := range described.Names {
		switch {
		case name == "received_at" && described.Types[i] != "VARCHAR":
			columns = append(columns, "strftime(make_timestamp(epoch_us(received_at)), '%Y-%m-%dT%H:%M:%S.%fZ') AS received_at")
		default:
			columns = append(columns, name+"::VARCHAR AS "+name)
		}
	}
	got := db.Query(t, "SELECT "+strings.Join(columns, ", ")+" FROM "+from+" ORDER BY event_id::VARCHAR")
	byID := make(map[any]map[string]any)
	for _, row := range got.Rows {
		values := make(map[string]any)
		for i, name := range got.Names {
			values[name] = row[i]
		}
		byID[values["event_id"]] = values
	}
	if len(got.Rows) != len(expected) {
		t.Errorf("%d rows, want %d", len(got.Rows), len(expected))
	}
	for _, values := range expected {
		want := make(map[string]any)
		for _, name := range got.Names {
			want[name] = values[name]
		}
		if diff := cmp.Diff(want, byID[values["event_id"]]); diff != "" {
			t.Errorf("event %v (-want +got):\n%.2000s", values["event_id"], diff)
		}
	}
}

// jsonMembers returns the members of an event's JSON, in their order.
func jsonMembers(t *testing.T) []string {
	t.Helper()
	text, err := bare(day).AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, member := range strings.Split(strings.Trim(string(text), "{}"), `,"`) {
		name, _, _ := strings.Cut(strings.TrimPrefix(member, `"`), `"`)
		names = append(names, name)
	}
	return names
}

// valuesOf returns the members of an event's JSON as texts.
func valuesOf(t *testing.T, e *event.Event) map[string]any {
	t.Helper()
	values := map[string]any{"supersedes": nil}
	for _, c := range event.Columns {
		text, err := appendText(nil, c, e)
		if s, ok := c.Field(e).(*string); ok {
			text = []byte(*s)
		}
		if err != nil {
			t.Fatal(err)
		}
		if values[c.Member()] = string(text); len(text) == 0 {
			values[c.Member()] = nil
		}
	}
	return values
}

// TestJSONLines holds that lines are those of the codec, in the order of receipt.
func TestJSONLines(t *testing.T) {
	t.Parallel()
	events := oddities()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	runAll(t, Config{Source: pages(t, database(t, events...)), Target: Local(path), Format: formatNamed(t, "jsonl"), Now: now})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var last time.Time
	seen := make(map[string]bool)
	for line := range bytes.Lines(text) {
		e, err := event.Parse(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil || e.ReceivedAt.Before(last) {
			t.Fatalf("%v at %v after %v", err, e, last)
		}
		last, seen[e.ID.String()] = e.ReceivedAt, true
	}
	for _, e := range events {
		if !seen[e.ID.String()] {
			t.Errorf("event %s is missing", e.ID)
		}
	}
}

package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
)

func TestExportMistakes(t *testing.T) {
	t.Parallel()
	database := clitest.Env{"UPCALL_DATABASE_URL": "postgres://x"}
	for name, tt := range map[string]struct {
		args string
		env  clitest.Env
		want []string // part of each line
	}{
		"nothing": {"", nil, []string{`--format: "" is unknown`, "--out: give a file", "set UPCALL_DATABASE_URL"}},
		"everything wrong": {"--format xls --out s3://x --since today --until 26.11.2026 --bucket My_Bucket", database,
			[]string{`--format: "xls" is unknown; use csv, jsonl or parquet`, "--bucket: bucket: \"My_Bucket\" holds", `--since: "today" is not`,
				`--until: "26.11.2026" is not`, `--out: "s3://x" is of a scheme`}},
		"another extension": {"--format csv --out x.parquet", database, []string{"does not end in .csv"}},
		"ends before it begins": {"--format csv --out x.csv --since 2026-11-02 --until 2026-11-01", database,
			[]string{"--until: 2026-11-01T00:00:00Z is not after since"}},
		"part of a day": {"--format csv --out x --since 2026-11-02T10:00:00+08:00", database, []string{"--since: 2026-11-02T02:00:00Z is within a day"}},
		"no bucket":     {"--format csv --out oss://", database, []string{"--out: bucket", "region", "access key id", "access key secret"}},
		"bad key": {"--format csv --out oss://demo//x --region cn-hangzhou", clitest.Env{"UPCALL_DATABASE_URL": "postgres://x",
			"OSS_ACCESS_KEY_ID": "a", "OSS_ACCESS_KEY_SECRET": "b"}, []string{"--out: key"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := program.Error(t, tt.env, append([]string{"export"}, strings.Fields(tt.args)...)...)
			if !errors.Is(err, cli.ErrUsage) {
				t.Fatalf("got %v, want a usage error", err)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(tt.want) {
				t.Errorf("got %d lines, want %d:\n%v", len(got), len(tt.want), err)
			}
			for i, want := range tt.want {
				if i < len(got) && !strings.Contains(got[i], want) {
					t.Errorf("line %d is %q, want %q in it", i+1, got[i], want)
				}
			}
		})
	}
}

// TestExport runs the commands of docs/export.md, with the rights that it lists.
func TestExport(t *testing.T) {
	t.Parallel()
	owner := dbtest.URL(t)
	pool := dbtest.Open(t, owner, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), pool, time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	dbtest.Execute(t, owner, `INSERT INTO upcall.upload_events (id, received_at, source, bucket) VALUES
		(gen_random_uuid(), '2026-11-25T10:00:00Z', 'callback', 'photos'), (gen_random_uuid(), '2026-11-26T10:00:00Z', 'callback', 'demo')`)
	url := dbtest.Role(t, owner, dbtest.Grants(t, "../../docs/export.md", "upcall_exporter")...)
	page, err := os.ReadFile("../../docs/export.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	env := clitest.Env{"UPCALL_DATABASE_URL": url, "OSS_REGION": ossfake.Region, "OSS_ENDPOINT": ossfake.Start(t), "UPCALL_PATH_STYLE": "true",
		"OSS_ACCESS_KEY_ID": ossfake.AccessKeyID, "OSS_ACCESS_KEY_SECRET": ossfake.AccessKeySecret}
	commands := regexp.MustCompile(`(?m)^receiver (export .*)$`).FindAllStringSubmatch(string(page), -1)
	if len(commands) < 4 {
		t.Fatalf("the page has %d commands", len(commands))
	}
	for _, command := range commands {
		line, _, _ := strings.Cut(command[1], " > ")
		line = strings.ReplaceAll(line, "/data/", dir+"/")
		line = strings.ReplaceAll(line, "oss://warehouse", "oss://"+ossfake.Bucket)
		out, said, err := program.Execute(t, env, strings.Fields(line)...)
		if err != nil || !strings.Contains(said, "exported ") || strings.Contains(line, "--out -") == (out == "") {
			t.Errorf("%s: %v, %s%s", line, err, out, said)
		}
	}
	for _, path := range []string{"events/day=2026-11-25/part-0.parquet", "events/day=2026-11-26/part-0.parquet", "events/_export-parquet.json"} {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Error(err)
		}
	}
	err = program.Error(t, env, "export", "--format", "parquet", "--bucket", "demo", "--out", filepath.Join(dir, "events"))
	if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), "holds an export of all buckets") {
		t.Errorf("another bucket: %v", err)
	}
	bare := clitest.Env{"UPCALL_DATABASE_URL": dbtest.Role(t, owner)}
	if err := program.Error(t, bare, "export", "--format", "csv", "--out", filepath.Join(dir, "x.csv")); !strings.Contains(err.Error(),
		"permission denied") {
		t.Errorf("without rights: %v", err)
	}
}

func TestPublication(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	env := clitest.Env{"UPCALL_DATABASE_URL": url}
	out, said, err := program.Execute(t, env, "publication", "create")
	if err != nil || out != "new events are published as upcall_events\n" || !strings.Contains(said, slotWarning) {
		t.Errorf("create: %v, %s%s", err, out, said)
	}
	role := clitest.Env{"UPCALL_DATABASE_URL": dbtest.Role(t, url, dbtest.Grants(t, "../../docs/database.md", "upcall_receiver")...)}
	for _, args := range []string{"create", "drop"} {
		if err := program.Error(t, role, "publication", args); strings.Contains(err.Error(), "\n") ||
			!regexp.MustCompile("permission denied|must be owner").MatchString(err.Error()) {
			t.Errorf("%s without rights: %v", args, err)
		}
	}
	if got := program.Output(t, env, "publication", "drop"); got != "events are not published\n" {
		t.Errorf("drop: %s", got)
	}
}

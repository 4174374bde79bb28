package main

import (
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
)

func TestReconcileMistakes(t *testing.T) {
	t.Parallel()
	env := clitest.Env{"UPCALL_DATABASE_URL": "postgres://x", "OSS_REGION": "cn-hangzhou",
		"OSS_ACCESS_KEY_ID": "a", "OSS_ACCESS_KEY_SECRET": "b"}
	for name, tt := range map[string]struct {
		args string
		env  clitest.Env
		want []string // part of each line
	}{
		"nothing": {"", nil, []string{"--bucket: bucket", "region", "access key id", "access key secret", "set UPCALL_DATABASE_URL"}},
		"everything wrong": {"--bucket My_Bucket --prefix /x --since today --rate 0 --format xml --reconcile-grace=-1s --retention 3d " +
			"--inventory s3://x",
			env, []string{"--bucket: bucket: \"My_Bucket\"", "--prefix: key: starts with", "--rate: 0 is not", `--since: "today" is not`,
				"UPCALL_RECONCILE_GRACE: -1s is negative", "UPCALL_RETENTION", `--format: "xml" is unknown`, `--inventory: "s3://x" is of a scheme`}},
		"negative rate":          {"--bucket photos --rate=-1", env, []string{"--rate: -1 is not"}},
		"no inventory":           {"--bucket photos --inventory /none/there", env, []string{"--inventory: manifest.json: is not there"}},
		"no bucket of inventory": {"--bucket photos --inventory oss://", env, []string{"--inventory: bucket", "--inventory: key"}},
		"embedded needs settings": {"--bucket photos", clitest.Env{"UPCALL_DATABASE_URL": "embedded"},
			[]string{"region", "access key id", "access key secret"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := program.Error(t, tt.env, append([]string{"reconcile"}, strings.Fields(tt.args)...)...)
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

func TestReconcileOfServe(t *testing.T) {
	t.Parallel()
	env := clitest.Env{"UPCALL_DATABASE_URL": "postgres://x", "UPCALL_TOKEN": "off", "UPCALL_RECONCILE_EVERY": "1s"}
	err := program.Error(t, env, "serve")
	for _, want := range []string{"UPCALL_RECONCILE_EVERY: 1s is less than 1m0s", "UPCALL_BUCKETS: is empty", "region", "access key id"} {
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

// TestReconcileHelp says what a dry run changes all the same.
func TestReconcileHelp(t *testing.T) {
	t.Parallel()
	help, _, err := program.Execute(t, nil, "reconcile", "--help")
	if err != nil || !strings.Contains(help, "upcall.reconcile_objects") {
		t.Errorf("%v, help:\n%s", err, help)
	}
}

// TestReconcile runs the commands of docs/reconcile.md against the emulator, with a receiver's rights.
func TestReconcile(t *testing.T) {
	t.Parallel()
	owner := dbtest.URL(t)
	pool := dbtest.Open(t, owner, eventstore.Open)
	if err := eventstore.EnsurePartitions(t.Context(), pool, time.Now()); err != nil {
		t.Fatal(err)
	}
	endpoint := ossfake.Start(t, func(c *ossemu.Config) { c.Buckets = []string{"photos", "warehouse"} })
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: endpoint, PathStyle: true,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	store := func(bucket, key, content string) {
		t.Helper()
		s, err := client.Stream(t.Context(), oss.Object{Bucket: bucket, Key: key, ContentType: "image/png"})
		if err == nil {
			if _, err = s.Write([]byte(content)); err == nil {
				err = s.Commit(t.Context())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sum := func(text string) string { return fmt.Sprintf("%X", md5.Sum([]byte(text))) }
	for _, key := range []string{"known", "lost", "2026/11/lost ü", "foreign"} {
		store("photos", key, key)
	}
	dbtest.Execute(t, owner, `INSERT INTO upcall.upload_events (id, received_at, source, bucket, object_key, etag) VALUES
			(gen_random_uuid(), now() - interval '1 minute', 'callback', 'photos', 'known', '`+sum("known")+`'),
			(gen_random_uuid(), now() - interval '1 minute', 'callback', 'photos', 'gone', '`+sum("gone")+`');
		INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key, vars)
		SELECT gen_random_uuid(), now() - interval '1 minute', now() + interval '1 hour', 'photos', key, '{"uid":"42"}'
		FROM unnest('{known,lost,2026/11/lost ü}'::text[]) AS key`)
	list := "photos,known\nphotos,lost\nphotos,2026%2F11%2Flost%20%C3%BC\nphotos,foreign\n"
	manifest := fmt.Sprintf(`{"creationTimestamp":%d,"fileFormat":"CSV","fileSchema":"Bucket,Key","sourceBucket":"photos",
		"files":[{"key":"inventory/photos/daily/data/1.csv","MD5checksum":"%s"}]}`, time.Now().Unix(), sum(list))
	dir := t.TempDir()
	for name, content := range map[string]string{"manifest.json": manifest, "manifest.checksum": sum(manifest), "1.csv": list} {
		key := "inventory/photos/daily/2026-11-27T00-00Z/" + name
		if name == "1.csv" {
			key = "inventory/photos/daily/data/1.csv"
		}
		store("warehouse", key, content)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	env := clitest.Env{"UPCALL_DATABASE_URL": dbtest.Role(t, owner, dbtest.Grants(t, "../../docs/database.md", "upcall_receiver")...),
		"OSS_REGION": ossfake.Region, "OSS_ENDPOINT": endpoint, "UPCALL_PATH_STYLE": "true", "UPCALL_RECONCILE_GRACE": "0s",
		"OSS_ACCESS_KEY_ID": ossfake.AccessKeyID, "OSS_ACCESS_KEY_SECRET": ossfake.AccessKeySecret}

	page, err := os.ReadFile("../../docs/reconcile.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^receiver (reconcile .*)$`).FindAllStringSubmatch(string(page), -1)
	text := func(run, known, missing int, recorded, share string, vanished int) string {
		return fmt.Sprintf("photos: 4 objects (run %d)\nknown      %d\nmissing    %d, %s; %s %% of what was issued\nvanished   %d\n"+
			"foreign    1, never issued\ntoo old    0\n", run, known, missing, recorded, share, vanished)
	}
	wants := []string{ // of each command on the page, in its order
		text(1, 1, 2, "none recorded in a dry run", "66.7", 1),
		text(2, 1, 2, "2 recorded", "66.7", 1),
		`{"run_id":3,"listed":1,"known":1,"missing":0,"recovered":0,"vanished":0,"foreign":0,"too_old":0,"lost_share":0}` + "\n",
		text(4, 3, 0, "0 recorded", "0", 0),
		text(5, 3, 0, "0 recorded", "0", 0),
	}
	if len(commands) != len(wants) {
		t.Fatalf("the page has %d commands", len(commands))
	}
	for i, command := range commands {
		line := strings.ReplaceAll(command[1], "/data/2026-11-27T00-00Z", dir)
		out, said, err := program.Execute(t, env, strings.Fields(line)...)
		if err != nil {
			t.Errorf("%s: %v, %s", line, err, said)
		} else if diff := cmp.Diff(wants[i], out); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
	var rows string
	if err := pool.QueryRow(t.Context(), `SELECT string_agg(concat_ws(' ', object_key, etag = '`+sum("lost")+`', size, mime_type,
		vars->>'uid', upload_id IS NOT NULL), ', ' ORDER BY object_key COLLATE "C")
		FROM upcall.upload_events WHERE source = 'reconcile'`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if want := "2026/11/lost ü f 15 image/png 42 t, lost t 4 image/png 42 t"; rows != want {
		t.Errorf("rows %q, want %q", rows, want)
	}
	sample := regexp.MustCompile("(?s)```json\n({\"run_id.*?)```").FindStringSubmatch(string(page))
	var got, printed map[string]any
	if len(sample) == 0 || json.Unmarshal([]byte(sample[1]), &got) != nil || json.Unmarshal([]byte(wants[2]), &printed) != nil ||
		len(got) != len(printed) {
		t.Errorf("the page shows %v, the command prints %v", got, printed)
	}
}

package export

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/oss"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"export": exportUntilKilled, "handover": handOverUntilKilled})
	os.Exit(m.Run())
}

// bucketOf returns a target in an emulator's bucket.
func bucketOf(endpoint, prefix string) (Target, error) {
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: endpoint, PathStyle: true,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		return Target{}, err
	}
	return Bucket(client, ossfake.Bucket, prefix), nil
}

// exportUntilKilled exports from a database to a directory, or to an emulator's bucket, and stops
// before it reads page number n. Its arguments are those of the child.
func exportUntilKilled() {
	url, endpoint, to, format := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	n, err := strconv.Atoi(os.Args[5])
	if err == nil {
		err = exportUntil(url, endpoint, to, format, n)
	}
	if err != nil {
		panic(err)
	}
}

func exportUntil(url, endpoint, to, format string, n int) error {
	ctx := context.Background()
	pool, err := eventstore.OpenPages(ctx, url)
	if err != nil {
		return err
	}
	cfg := Config{Target: Local(to), Now: now}
	if endpoint != "" {
		if cfg.Target, err = bucketOf(endpoint, to); err != nil {
			return err
		}
	}
	cfg.Format, _ = FormatNamed(format)
	read := 0
	cfg.Source = hooked{eventstore.NewPages(pool), func(eventstore.Span) error {
		if read++; read == n {
			fmt.Println("stopped")
			select {} // until it is killed
		}
		return nil
	}}
	_, err = Run(ctx, cfg)
	return err
}

// TestKilled kills exports at many places, each of which the next one continues; the files are
// those of an export that nothing disturbed.
func TestKilled(t *testing.T) {
	t.Parallel()
	pool := database(t, threeDays()...)
	dbtest.Execute(t, pool.Config().ConnString(), `INSERT INTO upcall.upload_events (id, received_at, source, vars)
		SELECT gen_random_uuid(), '2026-11-01T00:00:00Z'::timestamptz + i * interval '1 second', 'callback',
			jsonb_build_object('text', repeat(md5(i::text), 100)) FROM generate_series(1, 6000) AS i`)
	source, endpoint := pages(t, pool), ossfake.Start(t)
	official := ossclient.New(endpoint, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	for _, format := range []string{"csv", "jsonl", "parquet"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			undisturbed, dir := t.TempDir(), t.TempDir()
			cfg := Config{Format: formatNamed(t, format), Now: now, Source: source, Target: Local(undisturbed)}
			runAll(t, cfg)
			want := contents(t, undisturbed)
			for _, at := range []struct{ endpoint, to string }{{"", dir}, {endpoint, "killed-" + format}} {
				kills := 0
				for n := 1; ; n++ { // the same pages again, if their file was not complete
					child := proc.Start(t, "export", pool.Config().ConnString(), at.endpoint, at.to, format, strconv.Itoa(n))
					if _, stopped := child.Line(); !stopped { // fewer pages were left
						if err := child.Wait(); err != nil {
							t.Fatalf("after %d kills, an export failed: %v", kills, err)
						}
						break
					}
					child.Kill(t)
					kills++
					for name, content := range contents(t, dir) {
						if file := filepath.Base(name); file[0] != '.' && file[0] != '_' && content != want[name] {
							t.Errorf("%s is there and not complete, after %d kills", name, kills)
						}
					}
				}
				if kills < 5 {
					t.Errorf("only %d kills", kills)
				}
			}
			if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
				t.Errorf("directory (-undisturbed +killed):\n%.2000s", diff)
			}
			for name, content := range want {
				if _, got := ossclient.Get(t, official, ossfake.Bucket, "killed-"+format+"/"+name); string(got) != content {
					t.Errorf("%s in the bucket has %d bytes, want %d", name, len(got), len(content))
				}
			}
		})
	}
}

// contents returns all files below a directory, also those that no reader looks for.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, dir+"/")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

package reconcile

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, StorageClass, LastModifiedDate, ETag, " +
	"IsMultipartUploaded, EncryptionStatus"

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // to memory
	z.Close()
	return b.String()
}

func sumOf(text string) string { return fmt.Sprintf("%X", md5.Sum([]byte(text))) }

// An inventory of a test: files by name, and what changes the manifest or others after it was made.
type inventory struct {
	schema string
	lists  map[string]string // content, not compressed
	change func(files map[string]string)
}

// write makes the directory of an inventory by hand.
func (i inventory) write(t *testing.T) string {
	t.Helper()
	files := make(map[string]string)
	var entries []string
	for _, name := range slices.Sorted(maps.Keys(i.lists)) {
		files["data/"+name] = zipped(i.lists[name])
		entries = append(entries, fmt.Sprintf(`{"key":"inventory/photos/daily/data/%s","size":%d,"MD5checksum":"%s"}`,
			name, len(files["data/"+name]), sumOf(files["data/"+name])))
	}
	if i.schema == "" {
		i.schema = schema
	}
	files["manifest.json"] = fmt.Sprintf(`{"creationTimestamp":"%d","destinationBucket":"warehouse","fileFormat":"CSV",
		"fileSchema":"%s","files":[%s],"sourceBucket":"photos","version":"2019-09-01"}`,
		now.Add(-30*time.Minute).Unix(), i.schema, strings.Join(entries, ","))
	files["manifest.checksum"] = sumOf(files["manifest.json"])
	if i.change != nil {
		i.change(files)
	}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// manifest changes manifest.json, and its checksum accordingly.
func manifest(from, to string) func(map[string]string) {
	return func(files map[string]string) {
		files["manifest.json"] = strings.Replace(files["manifest.json"], from, to, 1)
		files["manifest.checksum"] = sumOf(files["manifest.json"])
	}
}

const line = `"photos","a","null","true","false","1","Standard","2026-11-27T11:00:00.000Z",` +
	`"0CC175B9C0F1B6A831C399E269772661","false","false"` + "\n"

// TestInventoryIsRead has inventories with each oddity of the format, and what is read of them.
func TestInventoryIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.counted(t)
	whole := []string{"a|0CC175B9C0F1B6A831C399E269772661|1|2026-11-27T11:00:00"}
	for _, tt := range []struct {
		name string
		inventory
		want []string // key|etag|size|time
	}{
		{"a file", inventory{lists: map[string]string{"1.csv.gz": line}}, whole},
		{"no objects", inventory{}, nil},
		{"files is null", inventory{change: manifest("[]", "null")}, nil},
		{"no files", inventory{change: manifest(`"files":[],`, "")}, nil},
		{"an empty file", inventory{lists: map[string]string{"1.csv.gz": ""}}, nil},
		{"several files", inventory{lists: map[string]string{"1.csv.gz": line, "2.csv.gz": strings.Replace(line, `"a"`, `"0"`, 1), "3.csv.gz": ""}},
			append([]string{strings.Replace(whole[0], "a|", "0|", 1)}, whole...)},
		{"bucket and key only", inventory{schema: "Bucket,Key", lists: map[string]string{"1.csv.gz": "photos,a\nphotos,b\n"}}, []string{"a", "b"}},
		{"another order", inventory{schema: "ETag, Size, Key, Bucket", lists: map[string]string{"1.csv.gz": "0cc1,5,a,photos"}}, []string{"a|0CC1|5"}},
		{"empty columns", inventory{lists: map[string]string{"1.csv.gz": "photos,a,,,,,,,,,\n"}}, []string{"a"}},
		{"unknown columns", inventory{schema: "Bucket, Key, Future, ", lists: map[string]string{"1.csv.gz": "photos,a,x,y\n"}}, []string{"a"}},
		{"a heading", inventory{schema: "Bucket,Key", lists: map[string]string{"1.csv.gz": "Bucket,Key\nphotos,a\n"}}, []string{"a"}},
		{"encoded keys", inventory{schema: "Bucket,Key", lists: map[string]string{"1.csv.gz": strings.Join([]string{
			"photos,a%0Ab%0D%09%01", "photos,a+b%2B", "photos,%E4%B8%8A/%C3%BC", "photos,b%20c%25", `"photos","d%2C%22"`}, "\r\n")}},
			[]string{"a\nb\r\t\x01", "a b+", "b c%", `d,"`, "上/ü"}},
		{"keys that no row can hold", inventory{schema: "Bucket,Key", lists: map[string]string{"1.csv.gz": "photos,a\nphotos,b%00\nphotos,c%FF\n"}},
			[]string{"a"}},
		{"versions", inventory{lists: map[string]string{"1.csv.gz": strings.Replace(line, `"true"`, `"False"`, 1) + line +
			strings.Replace(strings.Replace(line, `"a"`, `"gone"`, 1), `"false"`, `"True"`, 1) +
			strings.Replace(strings.Replace(line, `"a"`, `"gone"`, 1), `"true"`, `"false"`, 1)}}, whole},
		{"checksums in lower case", inventory{lists: map[string]string{"1.csv.gz": line}, change: func(files map[string]string) {
			manifest(sumOf(files["data/1.csv.gz"]), strings.ToLower(sumOf(files["data/1.csv.gz"])))(files)
			files["manifest.checksum"] = strings.ToLower(files["manifest.checksum"]) + "\n"
		}}, whole},
		{"name and md5", inventory{lists: map[string]string{"1.csv.gz": line}, change: func(files map[string]string) {
			manifest(`"key":`, `"name":`)(files)
			manifest("MD5checksum", "md5")(files)
		}}, whole},
		{"beside the manifest", inventory{lists: map[string]string{"1.csv.gz": line}, change: func(files map[string]string) {
			files["1.csv.gz"] = files["data/1.csv.gz"]
			delete(files, "data/1.csv.gz")
		}}, whole},
		{"not compressed", inventory{lists: map[string]string{"1.csv": line}, change: func(files map[string]string) {
			was := files["data/1.csv"]
			files["data/1.csv"] = line
			manifest(sumOf(was), sumOf(line))(files)
			manifest(fmt.Sprintf(`"size":%d`, len(was)), fmt.Sprintf(`"size":%d`, len(line)))(files)
		}}, whole},
		{"two members of gzip", inventory{lists: map[string]string{"1.csv.gz": ""}, change: func(files map[string]string) {
			was := files["data/1.csv.gz"]
			files["data/1.csv.gz"] = zipped(line) + zipped(strings.Replace(line, `"a"`, `"b"`, 1))
			manifest(sumOf(was), sumOf(files["data/1.csv.gz"]))(files)
			manifest(fmt.Sprintf(`"size":%d`, len(was)), fmt.Sprintf(`"size":%d`, len(files["data/1.csv.gz"])))(files)
		}}, append(whole, strings.Replace(whole[0], "a|", "b|", 1))},
		{"times", inventory{schema: "Bucket,Key,LastModifiedDate", lists: map[string]string{"1.csv.gz": "photos,a,2026-11-27T19:00:00+08:00\n" +
			"photos,b,1795777200\nphotos,c,2026-11-27T11-00Z\nphotos,d,\n"}},
			[]string{"a|2026-11-27T11:00:00", "b|2026-11-27T11:00:00", "c|2026-11-27T11:00:00", "d"}},
	} {
		opened, err := OpenInventory(t.Context(), Dir(tt.write(t)))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		cfg := w.config(t, newBucket())
		cfg.Inventory, cfg.DryRun = opened, true
		got, err := Run(t.Context(), cfg)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		rows := w.lines(t, `SELECT concat_ws('|', object_key, etag, size,
				to_char(last_modified AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'))
			FROM upcall.reconcile_objects ORDER BY object_key`)
		if diff := cmp.Diff(tt.want, rows); diff != "" && len(tt.want)+len(rows) > 0 {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if tt.name == "keys that no row can hold" && (got.Listed != 3 || got.Foreign != 3) {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// TestInventoryIsRefused has inventories that are wrong, and what the error says.
func TestInventoryIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.counted(t)
	flip := func(name string) func(map[string]string) {
		return func(files map[string]string) {
			content := []byte(files[name])
			content[len(content)/2] ^= 1
			files[name] = string(content)
		}
	}
	for _, tt := range []struct {
		name string
		inventory
		want string
	}{
		{"no manifest", inventory{change: func(f map[string]string) { delete(f, "manifest.json") }}, "manifest.json: is not there"},
		{"no checksum", inventory{change: func(f map[string]string) { delete(f, "manifest.checksum") }}, "manifest.checksum: is not there"},
		{"wrong checksum", inventory{change: flip("manifest.json")}, "manifest.json: has the MD5"},
		{"checksum is none", inventory{change: func(f map[string]string) { f["manifest.checksum"] = "yes" }}, "manifest.checksum: holds no MD5"},
		{"no JSON", inventory{change: manifest(`"creationTimestamp"`, `'`)}, "manifest.json: is not the JSON of a manifest"},
		{"no time", inventory{change: manifest(`"creationTimestamp"`, `"x"`)}, "creationTimestamp  is not a time"},
		{"another format", inventory{change: manifest(`"CSV"`, `"ORC"`)}, `fileFormat is "ORC"`},
		{"no bucket", inventory{change: manifest(`"photos"`, `""`)}, "sourceBucket"},
		{"another bucket", inventory{change: manifest(`"photos"`, `"others"`)}, `is of the bucket "others", not of "photos"`},
		{"no key", inventory{schema: "Bucket, Size"}, "lacks Bucket or Key"},
		{"a column twice", inventory{schema: "Bucket, Key, Key"}, "column Key twice"},
		{"no checksum of a file", inventory{lists: map[string]string{"1.csv.gz": line}, change: manifest("MD5checksum", "x")}, "file 1 has no name, or no MD5"},
		{"no name of a file", inventory{lists: map[string]string{"1.csv.gz": line}, change: manifest(`"key"`, `"x"`)}, "file 1 has no name, or no MD5"},
		{"a file is not there", inventory{lists: map[string]string{"1.csv.gz": line}, change: func(f map[string]string) { delete(f, "data/1.csv.gz") }},
			"inventory/photos/daily/data/1.csv.gz: is not there"},
		{"a file twice", inventory{lists: map[string]string{"1.csv.gz": line, "2.csv.gz": line}, change: manifest("2.csv.gz", "1.csv.gz")},
			"names the file inventory/photos/daily/data/1.csv.gz twice"},
		{"a damaged file", inventory{lists: map[string]string{"1.csv.gz": strings.Repeat(line, 9)}, change: flip("data/1.csv.gz")}, "1.csv.gz: has the MD5"},
		{"a changed file", inventory{lists: map[string]string{"1.csv.gz": line}, change: func(f map[string]string) {
			f["data/1.csv.gz"] = zipped(strings.Replace(line, `"a"`, `"b"`, 1))
		}}, "1.csv.gz: has"},
		{"a short file", inventory{lists: map[string]string{"1.csv.gz": line}, change: func(f map[string]string) {
			f["data/1.csv.gz"] = f["data/1.csv.gz"][:len(f["data/1.csv.gz"])-9]
		}}, "bytes, not"},
		{"an object twice", inventory{lists: map[string]string{"1.csv.gz": line + line}}, "1.csv.gz: lists an object twice"},
		{"an object in two files", inventory{lists: map[string]string{"1.csv.gz": line, "2.csv.gz": line}}, "2.csv.gz: lists an object twice"},
		{"a line of another bucket", inventory{lists: map[string]string{"1.csv.gz": line + strings.Replace(line, "photos", "others", 1)}},
			`1.csv.gz: line 2: is of the bucket "others"`},
		{"a key that is not encoded", inventory{lists: map[string]string{"1.csv.gz": strings.Replace(line, `"a"`, `"%zz"`, 1)}}, `line 1: key "%zz" is not URL-encoded`},
		{"an empty key", inventory{lists: map[string]string{"1.csv.gz": strings.Replace(line, `"a"`, `""`, 1)}}, `line 1: key "" is not`},
		{"too few columns", inventory{lists: map[string]string{"1.csv.gz": "photos,a\n"}}, "line 1: record on line 1: wrong number of fields"},
		{"a quote inside", inventory{lists: map[string]string{"1.csv.gz": `photos,a"b` + "\n"}}, "line 1"},
		{"size", inventory{lists: map[string]string{"1.csv.gz": strings.Replace(line, `"1"`, `"-1"`, 1)}}, `size "-1" is not`},
		{"time", inventory{lists: map[string]string{"1.csv.gz": strings.Replace(line, "2026-11", "2026/11", 1)}}, "LastModifiedDate"},
		{"marker", inventory{lists: map[string]string{"1.csv.gz": strings.Replace(line, `"false"`, `"no"`, 1)}}, `IsDeleteMarker is "no"`},
		{"latest", inventory{lists: map[string]string{"1.csv.gz": strings.Replace(line, `"true"`, `"1"`, 1)}}, `IsLatest is "1"`},
	} {
		opened, err := OpenInventory(t.Context(), Dir(tt.write(t)))
		if err == nil {
			cfg := w.config(t, newBucket())
			cfg.Inventory, cfg.DryRun = opened, true
			_, err = Run(t.Context(), cfg)
		}
		if !errors.Is(err, ErrInventory) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
		}
	}
	if n := w.number(t, "SELECT count(*) FROM upcall.reconcile_runs WHERE ended_at IS NULL"); n != 0 {
		t.Errorf("%d runs could be resumed", n)
	}
}

// TestInventoryIsOlder has what was stored, overwritten and removed since the inventory was made.
func TestInventoryIsOlder(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBucket()
	made := now.Add(-30 * time.Minute)
	dir := inventory{schema: "Bucket,Key,ETag", lists: map[string]string{
		"1.csv.gz": "photos,missing,AA\nphotos,known,AA\nphotos,removed,AA\n"}}.write(t)
	b.put("missing", "a", old)
	b.put("known", "a", made.Add(time.Minute)) // over what was listed
	b.put("since", "a", made.Add(time.Minute))
	w.issue(t, "missing", old.Add(-time.Minute), nil)
	w.issue(t, "removed", old.Add(-time.Minute), nil)
	w.tell(t, "known", etag("a"), made.Add(time.Minute), w.issue(t, "known", old, nil))
	w.tell(t, "since", etag("a"), made.Add(time.Minute), nil)
	w.tell(t, "gone since", etag("a"), made.Add(time.Minute), nil)
	w.tell(t, "gone", etag("a"), old, nil)
	w.counted(t)
	opened, err := OpenInventory(t.Context(), Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.config(t, b)
	cfg.Inventory = opened
	want := Counts{Listed: 3, Known: 1, Missing: 1, Recovered: 1, Vanished: 1}
	if diff := cmp.Diff(want, w.reconcile(t, cfg).Counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := w.lines(t, "SELECT object_key FROM upcall.removals"); !slices.Equal(got, []string{"gone"}) {
		t.Errorf("removals %q", got)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"creationTimestamp":"1","fileFormat":"CSV","fileSchema":"Bucket,Key","sourceBucket":"photos",
		"files":[{"key":"x","size":1,"MD5checksum":"00000000000000000000000000000000"}]}`))
	f.Add([]byte(`{"creationTimestamp":1795777200,"fileFormat":"csv","fileSchema":"Key, Bucket","sourceBucket":"photos"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseManifest(text)
		if err != nil {
			if !errors.Is(err, ErrInventory) {
				t.Errorf("%v", err)
			}
			return
		}
		if got.Bucket == "" || got.CreatedAt.IsZero() || got.columns.key < 0 || got.columns.key == got.columns.bucket {
			t.Errorf("%+v", got)
		}
	})
}

func FuzzLine(f *testing.F) {
	f.Add("photos", "a%20b", "true", "false", "1", "2026-11-27T11:00:00Z", "AA")
	f.Fuzz(func(t *testing.T, bucket, key, latest, marker, size, at, tag string) {
		c, err := parseSchema("Bucket,Key,IsLatest,IsDeleteMarker,Size,LastModifiedDate,ETag")
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.parse([]string{bucket, key, latest, marker, size, at, tag}, "photos")
		if err == nil && (bucket != "photos" || l.key == "" || l.size != nil && *l.size < 0 || !storable(l.etag)) {
			t.Errorf("%+v", l)
		}
	})
}

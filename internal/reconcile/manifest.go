package reconcile

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"upcall/internal/fault"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
)

// ErrInventory says that an inventory is not what OSS writes, is not complete, or was changed.
var ErrInventory = errors.New("inventory")

// An Inventory is a list of a bucket's objects that OSS made (Alibaba Cloud, "Bucket inventory").
type Inventory struct {
	Bucket    string    // whose objects it lists
	CreatedAt time.Time // when OSS began; what was stored later may be missing

	name    string // of the place where it is, and its time
	files   []inventoryFile
	columns columns
	open    func(ctx context.Context, name string) (io.ReadCloser, error)
}

// An inventoryFile is a list of objects, as the manifest names it.
type inventoryFile struct {
	name string
	size int64 // -1 if it is not known
	md5  [md5.Size]byte
}

const (
	manifestName, checksumName = "manifest.json", "manifest.checksum"
	mostManifest               = 16 << 20
)

// A Store has the files of an inventory by their names in the directory of the manifest.
type Store interface {
	// Open returns a file; the error wraps [fs.ErrNotExist] if there is none. The name of a list is the
	// one of its object in the bucket that OSS wrote it to.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	String() string
}

// A Dir is a directory into which an inventory was copied: the manifest and its checksum, and the lists
// beside them or in a directory data beside them or beside the directory.
type Dir string

func (d Dir) String() string { return string(d) }

// Open opens a file. Only the last part of the name counts, so that no manifest reaches other files.
func (d Dir) Open(_ context.Context, name string) (io.ReadCloser, error) {
	name = path.Base(name)
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	dir := string(d)
	for _, at := range []string{dir, filepath.Join(dir, "data"), filepath.Join(dir, "..", "data")} {
		f, err := os.Open(filepath.Join(at, name))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// Objects are an inventory where OSS wrote it.
type Objects struct {
	Client *oss.Client
	Bucket string
	Prefix string // of the manifest, which ends in /YYYY-MM-DDTHH-MMZ
}

func (o Objects) String() string { return "oss://" + o.Bucket + "/" + o.Prefix }

// Open opens an object. Lists have whole keys.
func (o Objects) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	key := name
	if name == manifestName || name == checksumName {
		key = strings.TrimSuffix(o.Prefix, "/") + "/" + name
	}
	body, err := o.Client.Open(ctx, o.Bucket, key)
	if errors.Is(err, oss.ErrNoObject) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return body, err
}

// OpenInventory reads the manifest of an inventory. The error wraps [ErrInventory] and says what is
// wrong with which file.
func OpenInventory(ctx context.Context, store Store) (*Inventory, error) {
	text, err := readAll(ctx, store, manifestName)
	if err != nil {
		return nil, err
	}
	// OSS writes it last: without it, the inventory may not be complete.
	sum, err := readAll(ctx, store, checksumName)
	if err != nil {
		return nil, err
	}
	want, ok := parseMD5(strings.TrimSpace(string(sum)))
	if !ok {
		return nil, wrong(checksumName, "holds no MD5")
	}
	if got := md5.Sum(text); got != want {
		return nil, wrong(manifestName, "has the MD5 %X, not %X as %s says", got, want, checksumName)
	}
	inventory, err := parseManifest(text)
	if err != nil {
		return nil, err
	}
	inventory.open = store.Open
	inventory.name = store.String() + " of " + inventory.CreatedAt.Format(time.RFC3339)
	return inventory, nil
}

func readAll(ctx context.Context, store Store, name string) ([]byte, error) {
	f, err := store.Open(ctx, name)
	if err != nil {
		return nil, notOpened(name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostManifest+1))
	if err == nil && len(text) > mostManifest {
		return nil, wrong(name, "is larger than %d bytes", mostManifest)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return text, nil
}

// wrong returns a mistake in a file.
func wrong(name, problem string, args ...any) error {
	return fault.New(ErrInventory, name, "copy the inventory again, or wait for the next one", problem, args...)
}

func notOpened(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return wrong(name, "is not there")
	}
	return fmt.Errorf("open %s: %w", name, err)
}

// parseMD5 reads an MD5 in hexadecimal, or in Base64.
func parseMD5(text string) (sum [md5.Size]byte, ok bool) {
	if b, err := hex.DecodeString(text); err == nil && len(b) == len(sum) {
		return [md5.Size]byte(b), true
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != len(sum) {
		return sum, false
	}
	return [md5.Size]byte(b), true
}

// parseManifest reads manifest.json, whose members are matched whatever their case.
func parseManifest(text []byte) (*Inventory, error) {
	var m struct {
		CreationTimestamp json.RawMessage `json:"creationTimestamp"`
		FileFormat        string          `json:"fileFormat"`
		FileSchema        string          `json:"fileSchema"`
		SourceBucket      string          `json:"sourceBucket"`
		Files             []struct {
			Key, Name, MD5, MD5Checksum string
			Size                        *int64
		} `json:"files"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, wrong(manifestName, "is not the JSON of a manifest: %v", err)
	}
	created, ok := parseStamp(strings.Trim(string(m.CreationTimestamp), `"`))
	if !ok {
		return nil, wrong(manifestName, "creationTimestamp %s is not a time", m.CreationTimestamp)
	}
	if err := ossrule.CheckBucket(m.SourceBucket); err != nil {
		return nil, wrong(manifestName, "sourceBucket: %v", err)
	}
	if !strings.EqualFold(m.FileFormat, "CSV") {
		return nil, fault.New(ErrInventory, manifestName, "configure an inventory in CSV", "fileFormat is %q, not CSV", m.FileFormat)
	}
	schema, err := parseSchema(m.FileSchema)
	if err != nil {
		return nil, err
	}
	inventory := &Inventory{Bucket: m.SourceBucket, CreatedAt: created, columns: schema}
	for i, f := range m.Files { // none if there are no objects
		file := inventoryFile{name: f.Key, size: -1}
		if file.name == "" {
			file.name = f.Name
		}
		sum := f.MD5Checksum
		if sum == "" {
			sum = f.MD5
		}
		if file.md5, ok = parseMD5(sum); file.name == "" || !ok {
			return nil, wrong(manifestName, "file %d has no name, or no MD5", i+1)
		}
		if f.Size != nil {
			file.size = *f.Size
		}
		if slices.ContainsFunc(inventory.files, func(other inventoryFile) bool { return other.name == file.name }) {
			return nil, wrong(manifestName, "names the file %s twice", file.name)
		}
		inventory.files = append(inventory.files, file)
	}
	return inventory, nil
}

// parseStamp reads seconds since 1970, or RFC 3339.
func parseStamp(text string) (time.Time, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 && n < 1<<40 {
		if n > 1<<36 { // milliseconds
			return time.UnixMilli(n).UTC(), true
		}
		return time.Unix(n, 0).UTC(), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15-04Z", "2006-01-02T15:04Z", time.DateTime} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

package reconcile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"upcall/migrations"
)

// columns are the places of what is read in a line; -1 if it is not there.
type columns struct {
	names                                        []string
	bucket, key, latest, marker, size, time, tag int
}

// parseSchema reads fileSchema, the names of columns. Those that are not read may have any name.
func parseSchema(text string) (columns, error) {
	var c columns
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if name != "" && slices.Contains(c.names, name) {
			return columns{}, wrong(manifestName, "fileSchema names the column %s twice", name)
		}
		c.names = append(c.names, name)
	}
	for name, place := range map[string]*int{"Bucket": &c.bucket, "Key": &c.key, "IsLatest": &c.latest, "IsDeleteMarker": &c.marker,
		"Size": &c.size, "LastModifiedDate": &c.time, "ETag": &c.tag} {
		*place = slices.Index(c.names, name)
	}
	if c.bucket < 0 || c.key < 0 {
		return columns{}, wrong(manifestName, "fileSchema %q lacks Bucket or Key", text)
	}
	return c, nil
}

// A listedLine is a line of a list; skip says that it is no current object.
type listedLine struct {
	object
	skip bool
}

// parse reads a line of a list.
func (c *columns) parse(line []string, bucket string) (l listedLine, err error) {
	if got := line[c.bucket]; got != bucket {
		return listedLine{}, fmt.Errorf("is of the bucket %q, not of %q", got, bucket)
	}
	if l.key, err = url.QueryUnescape(line[c.key]); err != nil || l.key == "" {
		return listedLine{}, fmt.Errorf("key %q is not URL-encoded", line[c.key])
	}
	latest, err := c.flag(line, c.latest, true)
	if err != nil {
		return listedLine{}, err
	}
	marker, err := c.flag(line, c.marker, false)
	if err != nil {
		return listedLine{}, err
	}
	l.skip = !latest || marker
	if text := c.at(line, c.size); text != "" {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || size < 0 {
			return listedLine{}, fmt.Errorf("size %q is not a number of bytes", text)
		}
		l.size = &size
	}
	if text := c.at(line, c.time); text != "" {
		var ok bool
		if l.modified, ok = parseStamp(text); !ok {
			return listedLine{}, fmt.Errorf("LastModifiedDate %q is not a time", text)
		}
	}
	l.etag = strings.ToUpper(strings.Trim(c.at(line, c.tag), `"`))
	if !storable(l.etag) {
		return listedLine{}, fmt.Errorf("ETag %q is not text", l.etag)
	}
	return l, nil
}

func (c *columns) at(line []string, place int) string {
	if place < 0 {
		return ""
	}
	return line[place]
}

func (c *columns) flag(line []string, place int, missing bool) (bool, error) {
	switch text := c.at(line, place); strings.ToLower(text) {
	case "":
		return missing, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, fmt.Errorf("%s is %q, not true or false", c.names[place], text)
	}
}

// A place is how far an inventory is read.
type place struct {
	File  int   `json:"file"`
	Lines int64 `json:"lines"` // of the file
}

const inventoryPage = 1000

// readInventory copies an inventory to the table.
func (r *run) readInventory(ctx context.Context) error {
	places, err := decodeParts[place](r.parts)
	if err != nil {
		return err
	}
	var at place
	if len(places) > 0 {
		at = places[0]
	}
	for ; at.File < len(r.Inventory.files); at = (place{File: at.File + 1}) {
		f := r.Inventory.files[at.File]
		if err := r.readFile(ctx, f, at); err != nil {
			return err
		}
	}
	return nil
}

// readFile copies the lines of a file from a place on. The checksum is compared at the end: until all is
// read, nothing is concluded from what was.
func (r *run) readFile(ctx context.Context, f inventoryFile, at place) error {
	body, err := r.Inventory.open(ctx, f.name)
	if err != nil {
		return notOpened(f.name, err)
	}
	defer body.Close()
	sum := md5.New()
	raw := &sizedReader{r: io.TeeReader(body, sum)}
	buffered := bufio.NewReaderSize(raw, 64<<10)
	var content io.Reader = buffered
	if head, _ := buffered.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		if content, err = gzip.NewReader(buffered); err != nil {
			return wrong(f.name, "is not compressed by gzip: %v", err)
		}
	}
	err = r.readLines(ctx, f, at, content)
	if err != nil && !errors.Is(err, errLine) {
		return err
	}
	// A damaged file is named as such, rather than by the first line that cannot be read.
	if _, drained := io.Copy(io.Discard, buffered); drained != nil {
		return fmt.Errorf("read %s: %w", f.name, drained)
	}
	if f.size >= 0 && raw.n != f.size {
		return wrong(f.name, "has %d bytes, not %d as the manifest says", raw.n, f.size)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, f.md5[:]) {
		return wrong(f.name, "has the MD5 %X, not %X as the manifest says", got, f.md5)
	}
	if err != nil {
		return wrong(f.name, "%v", err)
	}
	return r.commit(ctx, r.at(place{File: at.File + 1}), nil)
}

// errLine is wrapped by errors about what a file holds.
var errLine = errors.New("line")

// A sizedReader counts bytes.
type sizedReader struct {
	r io.Reader
	n int64
}

func (s *sizedReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	return n, err
}

// at returns the record for a place in the inventory.
func (r *run) at(p place) record {
	next := r.record
	next.parts, _ = json.Marshal([]place{p}) // numbers can always be marshaled
	return next
}

func (r *run) readLines(ctx context.Context, f inventoryFile, at place, content io.Reader) error {
	lines := csv.NewReader(content)
	lines.FieldsPerRecord, lines.ReuseRecord = len(r.Inventory.columns.names), true
	done, page := at.Lines, make([]object, 0, inventoryPage)
	at.Lines = 0
	next := r.record
	flush := func() error {
		next.parts, _ = json.Marshal([]place{at})
		err := r.commit(ctx, next, func(tx pgx.Tx) error { return r.copy(ctx, tx, page) })
		if migrations.ServerError(err).Code == uniqueViolation {
			return wrong(f.name, "lists an object twice: %s", migrations.ServerError(err).Detail)
		}
		page, next = page[:0], r.record
		if err == nil {
			r.report()
		}
		return err
	}
	for {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return fmt.Errorf("%w %d: %w", errLine, at.Lines+1, err)
		}
		at.Lines++
		if at.Lines == 1 && slices.Equal(line, r.Inventory.columns.names) || at.Lines <= done {
			continue // a heading, or read by the process before
		}
		l, err := r.Inventory.columns.parse(line, r.Bucket)
		if err != nil {
			return fmt.Errorf("%w %d: %w", errLine, at.Lines, err)
		}
		if l.skip || !strings.HasPrefix(l.key, r.Prefix) {
			continue
		}
		next.counts.Listed++
		if !storable(l.key) { // nobody issued an upload to it: the ledger cannot hold it either
			next.counts.Foreign++
			continue
		}
		l.key = strings.Clone(l.key)
		if page = append(page, l.object); len(page) == inventoryPage {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// uniqueViolation is PostgreSQL's SQLSTATE for a key that is there already.
const uniqueViolation = "23505"

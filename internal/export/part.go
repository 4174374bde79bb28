package export

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"

	"upcall/internal/event"
	"upcall/internal/fault"
)

// ErrDamaged says that a file is not what was written.
var ErrDamaged = errors.New("the file is not what was written")

const (
	// readBuffer is how much of a column is read at once: one request to OSS.
	readBuffer = 256 << 10
	// partRows is how many rows are decoded at once.
	partRows = 64
)

// The members that a part is read by, by their places in [event.Members].
var memberID, memberAt, memberSize, memberCRC64, memberSupersedes = memberNamed("event_id"), memberNamed("received_at"),
	memberNamed("size"), memberNamed("crc64"), memberNamed("supersedes")

func memberNamed(name string) int {
	return slices.IndexFunc(event.Members, func(c event.Column) bool { return c.Member() == name })
}

// A position is an event's in the order of receipt.
type position struct {
	at int64 // in microseconds
	id uuid.UUID
}

func positionOf(row parquet.Row) position {
	return position{row[memberAt].Int64(), uuid.UUID(row[memberID].ByteArray())}
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.at, q.at), bytes.Compare(p.id[:], q.id[:]))
}

// A part is a Parquet file of a day while it is read from its beginning to its end, in the order of receipt.
type part struct {
	stored
	source *source
	closer io.Closer
	groups []parquet.RowGroup // that are not read yet
	rows   parquet.Rows       // of the current one; nil if there is none
	buffer []parquet.Row      // some of them
	read   []parquet.Row      // those in it that were read
	column []int              // of each member: its column in the file, -1 if it has none
	wanted string             // what content must be; "" if the file does not say

	row     parquet.Row // the current one, its members in their order; nil at the end
	content content
	stale   bool // it has an event that is another one in PostgreSQL
}

// A source is a file that is read. Its error is not the file's fault.
type source struct {
	io.ReaderAt
	err error
}

func (s *source) ReadAt(p []byte, offset int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(p, offset)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// openPart opens a file, and moves to its first event.
func openPart(ctx context.Context, target Target, s stored) (*part, error) {
	reader, closer, err := target.open(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.name, err)
	}
	p := &part{stored: s, source: &source{ReaderAt: reader}, closer: closer, buffer: make([]parquet.Row, partRows)}
	err = p.begin(reader.Size())
	if err == nil {
		err = p.advance()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *part) close() {
	if p.rows != nil {
		p.rows.Close() // only read
	}
	p.closer.Close()
}

// begin reads the footer.
func (p *part) begin(size int64) error {
	return p.guard(func() error {
		f, err := parquet.OpenFile(p.source, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true),
			parquet.OptimisticRead(true), parquet.ReadBufferSize(readBuffer))
		if err != nil {
			return err
		}
		p.groups = f.RowGroups()
		p.wanted, _ = f.Lookup(contentKey)
		for _, c := range event.Members {
			column := -1
			if leaf, there := f.Schema().Lookup(c.Member()); there {
				column = leaf.ColumnIndex
			}
			p.column = append(p.column, column)
		}
		p.row = make(parquet.Row, len(event.Members))
		if p.column[memberID] < 0 || p.column[memberAt] < 0 {
			return errors.New("it has no event_id or no received_at")
		}
		return nil
	})
}

// guard does some reading. What is wrong with a file is an error, also where the library panics.
func (p *part) guard(reading func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("%v", panicked)
		}
		switch {
		case err == nil:
		case p.source.err != nil:
			err = fmt.Errorf("read %s: %w", p.name, p.source.err)
		default:
			err = p.damaged("%s", fault.Line(err.Error()))
		}
	}()
	return reading()
}

func (p *part) damaged(problem string, args ...any) error {
	return fault.New(ErrDamaged, p.name, "put back the file that was written, or move this one away: what PostgreSQL has is written again",
		"%s: %s", ErrDamaged, fmt.Sprintf(problem, args...))
}

// advance moves to the next event. At the end, the content must be what was written.
func (p *part) advance() error {
	var last position
	if p.content.rows > 0 {
		last = positionOf(p.row)
	}
	next, err := p.decode()
	if err != nil {
		return err
	}
	if next == nil {
		if p.row = nil; p.wanted != "" && p.wanted != p.content.String() {
			return p.damaged("it has %s, and says that it has %s", p.content, p.wanted)
		}
		return nil
	}
	p.content.add(next)
	for member, column := range p.column {
		if p.row[member] = (parquet.Value{}); column >= 0 {
			if column >= len(next) || next[column].Column() != column {
				return p.damaged("a column has several values in an event")
			}
			p.row[member] = next[column]
		}
	}
	if id, at := p.row[memberID], p.row[memberAt]; id.Kind() != parquet.FixedLenByteArray || len(id.ByteArray()) != 16 || at.Kind() != parquet.Int64 {
		return p.damaged("event %d has no id or no time", p.content.rows)
	}
	if p.content.rows > 1 && positionOf(p.row).compare(last) <= 0 {
		return p.damaged("its events are not in the order of receipt")
	}
	return nil
}

// decode returns the next row as it is in the file, nil at the end. It is valid until the next call.
func (p *part) decode() (row parquet.Row, err error) {
	err = p.guard(func() error {
		for len(p.read) == 0 {
			if p.rows == nil {
				if len(p.groups) == 0 {
					return nil
				}
				p.rows, p.groups = p.groups[0].Rows(), p.groups[1:]
			}
			n, err := p.rows.ReadRows(p.buffer)
			if p.read = p.buffer[:n]; err == io.EOF {
				err = nil
				if n == 0 {
					err, p.rows = p.rows.Close(), nil
				}
			}
			if err != nil {
				return err
			}
		}
		row, p.read = p.read[0], p.read[1:]
		return nil
	})
	return row, err
}

// seek moves to an event, or to the first one after it, and reports whether it is that.
func (p *part) seek(to position) (bool, error) {
	for p.row != nil {
		if c := positionOf(p.row).compare(to); c >= 0 {
			return c == 0, nil
		}
		if err := p.advance(); err != nil {
			return false, err
		}
	}
	return false, nil
}

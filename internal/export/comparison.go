package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"

	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// events are those of a day in PostgreSQL, in the order of receipt.
type events struct {
	month eventstore.Month
	day   eventstore.Span
	rest  bool // to pause for as long as it took since the last page

	page  []*event.Event
	after eventstore.Place
	limit int
	began time.Time
}

// next returns the next event, nil at the end.
func (s *events) next(ctx context.Context) (*event.Event, error) {
	if len(s.page) == 0 {
		if s.rest && !s.began.IsZero() {
			if err := pause(ctx, time.Since(s.began)); err != nil {
				return nil, err
			}
		}
		s.began = time.Now()
		// Large events make small pages, and what was asked for in vain was read in vain.
		page, err := s.month.Next(ctx, s.day, s.after, s.limit)
		if err != nil || len(page) == 0 {
			return nil, err
		}
		last := page[len(page)-1]
		s.page, s.limit, s.after = page, min(2*len(page), firstPage), eventstore.Place{At: last.ReceivedAt, ID: last.ID}
	}
	e := s.page[0]
	s.page = s.page[1:]
	return e, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A comparison holds the events of a day against the files that have some of them.
type comparison struct {
	target Target
	events events
	parts  []*part
	values values
}

// run writes events that are in no file to another one, and returns how many, and the sums of all others, as the files
// have them.
func (c *comparison) run(ctx context.Context, next string) (found eventstore.Sums, missing int, err error) {
	var out *output
	defer func() {
		if err != nil && out != nil {
			err = errors.Join(err, out.file.discard(context.WithoutCancel(ctx)))
		}
	}()
	for {
		e, err := c.events.next(ctx)
		if err != nil {
			return found, 0, err
		}
		if e == nil {
			break
		}
		there, err := c.look(e)
		if err != nil {
			return found, 0, err
		}
		if there != nil {
			found.Add(uuid.UUID(there[memberID].ByteArray()), there[memberSize].Int64(), there[memberCRC64].Uint64())
			continue
		}
		if out == nil {
			if out, err = begin(ctx, c.target.createNew, next); err != nil {
				return found, 0, err
			}
		}
		if err := out.table.add(e); err != nil {
			return found, 0, fmt.Errorf("write event %s: %w", e.ID, err)
		}
		missing++
	}
	for _, p := range c.parts { // what is wrong with one shows at its end
		for p.row != nil {
			if err := p.advance(); err != nil {
				return found, 0, err
			}
		}
	}
	if out != nil {
		err = out.commit(ctx)
	}
	return found, missing, err
}

// look returns an event as a file has it, nil if none does. A file that has it otherwise is stale.
func (c *comparison) look(e *event.Event) (there parquet.Row, err error) {
	c.values.text = c.values.text[:0]
	row, err := c.values.row(e)
	if err != nil {
		return nil, fmt.Errorf("compare event %s: %w", e.ID, err)
	}
	for _, p := range c.parts {
		has, err := p.seek(positionOf(row))
		if err != nil {
			return nil, err
		}
		if has {
			p.stale = p.stale || !same(row, p.row)
			there = p.row
		}
	}
	return there, nil
}

// same reports whether a file has an event as PostgreSQL has it. What it supersedes is not known there any more once
// that was dropped.
func same(here, there parquet.Row) bool {
	for member := range here {
		if !parquet.Equal(here[member], there[member]) && (member != memberSupersedes || !here[member].IsNull()) {
			return false
		}
	}
	return true
}

// An output is a Parquet file that is written.
type output struct {
	file  file
	table *table
}

func begin(ctx context.Context, create func(context.Context, string) (file, error), name string) (*output, error) {
	f, err := create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &output{f, newTable(f)}, nil
}

// commit returns when the file is there.
func (o *output) commit(ctx context.Context) error {
	if err := o.table.end(); err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return o.file.commit(ctx)
}

// rewrite writes a file again, with the events that PostgreSQL has as they are there, and the others as they were.
func (h *HandOver) rewrite(ctx context.Context, s stored, now events) (err error) {
	old, err := openPart(ctx, h.target, s)
	if err != nil {
		return err
	}
	defer old.close()
	out, err := begin(ctx, h.target.create, s.name)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.file.discard(context.WithoutCancel(ctx)))
		}
	}()
	e, err := now.next(ctx)
	for old.row != nil && err == nil {
		at, order := positionOf(old.row), 1
		if e != nil {
			order = position{e.ReceivedAt.UnixMicro(), e.ID}.compare(at)
		}
		if order < 0 {
			e, err = now.next(ctx)
			continue
		}
		if order == 0 {
			if before := old.row[memberSupersedes]; !e.Supersedes.Valid && !before.IsNull() {
				e.Supersedes = uuid.NullUUID{UUID: uuid.UUID(before.ByteArray()), Valid: true}
			}
			err = out.table.add(e)
		} else {
			row := make(parquet.Row, len(old.row))
			for i, v := range old.row {
				row[i] = out.table.values.place(v.Clone(), i)
			}
			err = out.table.addRow(row)
		}
		if err == nil {
			err = old.advance()
		}
	}
	if err != nil {
		return fmt.Errorf("write %s again: %w", s.name, err)
	}
	return out.commit(ctx)
}

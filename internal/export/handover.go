package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
)

// markName is a file in each directory that months are handed over to, so that no export goes there: it would
// write over days of which PostgreSQL has only what came late.
const markName = "_retention.json"

// A HandOver keeps events that expire as Parquet files, day=2026-11-26/part-0.parquet. It is an [eventstore.Keeper].
//
// A day is read from PostgreSQL and from its files at once, both in the order of receipt. What is in no file goes to a
// new one, part-1 and so on, which never takes the place of another. Then all is compared again, until there is
// nothing left to write. So it does not matter what an earlier run has done, or another process does.
//
// A file is written again if an event in it is another one in PostgreSQL, of which something was erased since.
// What is in a file and no longer in PostgreSQL stays.
type HandOver struct {
	target Target
	rest   bool
}

// NewHandOver returns one for a directory. With rest, it leaves half of the time to others.
func NewHandOver(target Target, rest bool) (*HandOver, error) {
	if !target.daily {
		return nil, errors.New("months are handed over to a directory, not to a file")
	}
	return &HandOver{target, rest}, nil
}

// Ready makes sure that the directory is there, is that of a HandOver, and can be read and written. It does not make
// it: a disk that is not mounted would be taken for an empty one.
func (h *HandOver) Ready(ctx context.Context) error {
	if err := h.target.check(); err != nil {
		return err
	}
	if text, err := h.target.load(ctx, markName); err != nil || text != nil {
		return err
	}
	for _, f := range Formats {
		name := stateName(f)
		if text, err := h.target.load(ctx, name); err != nil {
			return err
		} else if text != nil {
			return fault.New(ErrOther, name, "choose another directory", "the directory is one of receiver export")
		}
	}
	text, err := json.MarshalIndent(map[string]any{"written_by": "UPCALL_RETENTION_EXPORT", "format": "parquet", "columns": columnNames()}, "", "\t")
	if err != nil {
		return fmt.Errorf("write %s: %w", markName, err)
	}
	return h.target.write(ctx, markName, append(text, '\n'))
}

// Keep writes what is missing of a month, and reads all of it back.
func (h *HandOver) Keep(ctx context.Context, m eventstore.Month) (total eventstore.Sums, err error) {
	if err := h.Ready(ctx); err != nil {
		return eventstore.Sums{}, err
	}
	for from := m.Begins; ; {
		first, there, err := m.First(ctx, from)
		if err != nil || !there {
			return total, err
		}
		day := eventstore.Span{Since: dayOf(first), Until: dayOf(first).AddDate(0, 0, 1)}
		sums, err := h.day(ctx, m, day)
		if err != nil {
			return eventstore.Sums{}, err
		}
		total, from = total.Plus(sums), day.Until
	}
}

// rounds is how often a day is compared: once to write, once to read, and again if something was erased meanwhile.
const rounds = 4

func (h *HandOver) day(ctx context.Context, m eventstore.Month, day eventstore.Span) (eventstore.Sums, error) {
	for range rounds {
		parts, next, err := h.parts(ctx, day)
		if err != nil {
			return eventstore.Sums{}, err
		}
		c := comparison{target: h.target, events: h.events(m, day), parts: parts, values: newValues()}
		sums, missing, err := c.run(ctx, next)
		closeAll(parts)
		if err != nil {
			return eventstore.Sums{}, err
		}
		done := missing == 0
		for _, p := range parts {
			if p.stale {
				done = false
				if err := h.rewrite(ctx, p.stored, h.events(m, day)); err != nil {
					return eventstore.Sums{}, err
				}
			}
		}
		if done {
			return sums, nil
		}
	}
	return eventstore.Sums{}, fmt.Errorf("%s: what was read back %d times is not what was written", folderOf(day), rounds)
}

func (h *HandOver) events(m eventstore.Month, day eventstore.Span) events {
	return events{month: m, day: day, rest: h.rest, limit: firstPage}
}

func closeAll(parts []*part) {
	for _, p := range parts {
		p.close()
	}
}

func folderOf(day eventstore.Span) string { return "day=" + day.Since.Format(time.DateOnly) }

const partExtension = ".parquet"

// parts opens the files of a day, and returns the name of the next one.
func (h *HandOver) parts(ctx context.Context, day eventstore.Span) (parts []*part, next string, err error) {
	defer func() {
		if err != nil {
			closeAll(parts)
		}
	}()
	files, err := h.target.list(ctx, folderOf(day))
	if err != nil {
		return nil, "", err
	}
	free := 0
	for _, f := range files {
		number, isPart := strings.CutPrefix(path.Base(f.name), "part-")
		number, isParquet := strings.CutSuffix(number, partExtension)
		n, err := strconv.Atoi(number)
		if !isPart || !isParquet || err != nil || n < 0 || path.Dir(f.name) != folderOf(day) {
			continue
		}
		free = max(free, n+1)
		p, err := openPart(ctx, h.target, f)
		if err != nil {
			return parts, "", err
		}
		parts = append(parts, p)
	}
	return parts, fmt.Sprintf("%s/part-%d%s", folderOf(day), free, partExtension), nil
}

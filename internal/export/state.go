package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"upcall/internal/fault"
)

// A state says what a directory holds, and how far the last run came.
type state struct {
	Format  string          `json:"format"`
	Bucket  string          `json:"bucket"` // "" is any
	Columns []string        `json:"columns"`
	Since   time.Time       `json:"since"`
	Asked   time.Time       `json:"asked_until"` // zero if now was meant
	Until   time.Time       `json:"until"`
	BegunAt time.Time       `json:"begun_at"`
	EndedAt *time.Time      `json:"ended_at"` // null if it was interrupted
	Days    map[string]done `json:"days"`     // by the day, as 2026-11-26
}

// Done is a day whose file is complete.
type done struct {
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
}

func (r *run) stateName() string { return stateName(r.Format) }

func stateName(f Format) string { return "_export-" + f.extension + ".json" }

// resume returns the state of a run that was interrupted and is the same as this one, or else a
// new state, which is saved.
func (r *run) resume(ctx context.Context) (*state, error) {
	s := &state{Format: r.Format.extension, Bucket: r.Bucket, Columns: columnNames(), Since: r.Since.UTC(), Asked: r.Until.UTC(),
		Until: r.span.Until.UTC(), BegunAt: r.Now().UTC(), Days: make(map[string]done)}
	if mark, err := r.Target.load(ctx, markName); err != nil {
		return nil, err
	} else if mark != nil {
		return nil, fault.New(ErrOther, markName, "choose another directory", "the directory has what retention has handed over")
	}
	text, err := r.Target.load(ctx, r.stateName())
	if err != nil {
		return nil, err
	}
	if text != nil {
		former := state{Days: make(map[string]done)}
		if err := json.Unmarshal(text, &former); err != nil {
			return nil, fault.New(ErrOther, r.stateName(), "remove it, or choose another directory", "cannot be read: %v", err)
		}
		if former.Bucket != s.Bucket {
			return nil, fault.New(ErrOther, r.stateName(), "choose another directory",
				"the directory holds an export of %s, not of %s", bucketName(former.Bucket), bucketName(s.Bucket))
		}
		if former.EndedAt == nil && former.Since.Equal(s.Since) && former.Asked.Equal(s.Asked) &&
			slices.Equal(former.Columns, s.Columns) {
			r.progress.Continue = true
			return &former, nil
		}
	}
	return s, r.Target.save(ctx, r.stateName(), s)
}

func bucketName(name string) string {
	if name == "" {
		return "all buckets"
	}
	return fmt.Sprintf("the bucket %q", name)
}

// save writes a state.
func (t Target) save(ctx context.Context, name string, s *state) error {
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return t.write(ctx, name, append(text, '\n'))
}

// write writes a small file.
func (t Target) write(ctx context.Context, name string, text []byte) error {
	f, err := t.create(ctx, name)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.discard(context.WithoutCancel(ctx)))
	}
	return f.commit(ctx)
}

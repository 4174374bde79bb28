package export

import (
	"context"
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
	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/duckdb"
	"upcall/internal/testing/toolchain"
)

// TestHandOver: months are handed over and dropped, the oldest first, and late events of a month that was dropped go to
// files of their own.
func TestHandOver(t *testing.T) {
	t.Parallel()
	for name, make := range targets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHandWorld(t, make(t), oldEvents(old())...)
			w.add(t, oldEvents(old().AddDate(0, 1, 0))...)
			for i, begins := range []time.Time{old(), old().AddDate(0, 1, 0)} {
				got := w.drop(t)
				if want := begins.Format("2006_01"); !slices.Equal(got.Months, []string{want}) || got.Kept != 45 {
					t.Fatalf("dropped %+v, want %s", got, want)
				}
				if n := len(w.tables(t)); n != 1-i || len(w.inFiles(t)) != 45*(i+1) {
					t.Errorf("tables %v are left, and files have %d events", w.tables(t), len(w.inFiles(t)))
				}
				w.wantAll(t)
			}
			w.add(t, full(old().AddDate(0, 0, 9).Add(time.Hour)), full(old().AddDate(0, 0, 20)))
			if got := w.drop(t); got.Kept != 2 || len(w.tables(t)) > 0 {
				t.Errorf("dropped %+v, tables %v are left", got, w.tables(t))
			}
			w.wantAll(t)
			files, err := w.target.list(t.Context(), "day="+old().AddDate(0, 0, 9).Format(time.DateOnly))
			if err != nil || len(files) != 2 || !strings.HasSuffix(files[1].name, "/part-1.parquet") {
				t.Errorf("the day with the late event has %v, %v", files, err)
			}
			if got := w.drop(t); len(got.Months) > 0 || got.Kept > 0 {
				t.Errorf("dropped %+v, but nothing has expired", got)
			}
		})
	}
}

// TestHandedOverByDuckDB: the files are those of an export, to a reader that knows nothing of us.
func TestHandedOverByDuckDB(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	w := handLocal(t, oldEvents(old())...)
	exported := t.TempDir()
	runAll(t, Config{Source: pages(t, w.pool), Target: Local(exported), Format: formatNamed(t, "parquet"), Now: time.Now})
	w.drop(t)
	db := duckdb.Open(t)
	read := func(dir string) string {
		return fmt.Sprintf("FROM read_parquet('%s/*/*.parquet', hive_partitioning = false)", dir)
	}
	for _, sql := range []string{"DESCRIBE SELECT * %s", "SELECT * %s ORDER BY received_at, event_id",
		"SELECT count(*), sum(size), sum(crc64::HUGEINT) %s"} {
		want, got := db.Query(t, fmt.Sprintf(sql, read(exported))), db.Query(t, fmt.Sprintf(sql, read(w.dir)))
		if diff := cmp.Diff(want, got); diff != "" || len(got.Rows) == 0 {
			t.Errorf("%s (-exported +handed over):\n%.2000s", sql, diff)
		}
	}
}

// between is a keeper that does something after each time that a month was handed over.
type between struct {
	eventstore.Keeper
	after func(n int)
	n     int
}

func (b *between) Keep(ctx context.Context, m eventstore.Month) (eventstore.Sums, error) {
	sums, err := b.Keeper.Keep(ctx, m)
	b.n++
	b.after(b.n)
	return sums, err
}

// dropWith drops a month, with something in between.
func (w *handWorld) dropWith(t *testing.T, after func(n int)) (eventstore.Dropped, error) {
	t.Helper()
	return eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, &between{Keeper: w.keeper(t), after: after})
}

// TestLateEvents: what comes into a month after it was handed over is handed over, too, before it is dropped.
func TestLateEvents(t *testing.T) {
	t.Parallel()
	for name, make := range targets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHandWorld(t, make(t), oldEvents(old())...)
			late := []*event.Event{full(old()), full(old().AddDate(0, 0, 9).Add(time.Minute)), full(old().AddDate(0, 0, 25))}
			got, err := w.dropWith(t, func(n int) {
				switch n {
				case 1: // it is attached
					w.add(t, late...)
				case 2: // it is detached, so that this one makes another month
					w.add(t, full(old().AddDate(0, 0, 26)))
				}
			})
			if err != nil || got.Kept != 48 {
				t.Fatalf("dropped %+v, %v", got, err)
			}
			w.wantAll(t)
			if n := len(w.inFiles(t)); n != 48 {
				t.Errorf("%d events were handed over, want 48", n)
			}
			if got := w.drop(t); got.Kept != 1 || len(w.tables(t)) > 0 {
				t.Errorf("dropped %+v, tables %v are left", got, w.tables(t))
			}
			w.wantAll(t)
		})
	}
}

// TestErasedMeanwhile: what was asked to be erased before a month is dropped is not in its files, whenever that was.
func TestErasedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]int{"before": 0, "while it is attached": 1, "while it is detached": 2} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, done: %v", name, done), func(t *testing.T) {
				t.Parallel()
				w := handLocal(t, oldEvents(old())...)
				erase := func() {
					for id, line := range w.want {
						e, err := event.Parse([]byte(line))
						if err != nil {
							t.Fatal(err)
						}
						if string(e.Callback.Vars["uid"]) == `"42"` {
							e.Erase()
							w.want[id] = lineOf(t, e)
						}
					}
					if done {
						eraser := eventstore.NewEraser(w.pool, dbtest.Beside(t, w.pool, eventstore.OpenReader), func(string) {})
						if _, err := eraser.Erase(t.Context(), eventstore.EraseRequest{Variable: "uid", Value: "42"}); err != nil {
							t.Fatal(err)
						}
						return
					}
					if _, err := w.pool.Exec(t.Context(), `INSERT INTO upcall.erasures (variable, salt, digest)
						VALUES ('uid', 'salt', sha256('salt42'))`); err != nil { // and killed then
						t.Fatal(err)
					}
				}
				if when == 0 {
					erase()
				}
				got, err := w.dropWith(t, func(n int) {
					if n == when {
						erase()
					}
				})
				if err != nil || got.Kept != 45 || len(w.tables(t)) > 0 {
					t.Fatalf("dropped %+v, %v; tables %v are left", got, err, w.tables(t))
				}
				w.wantAll(t)
				if erased := strings.Count(strings.Join(slices.Collect(maps.Values(w.want)), ""), `"vars":{}`); erased != 45 {
					t.Errorf("%d events have no variables, want all", erased)
				}
			})
		}
	}
}

// TestSupersededInTheNextMonth: an event that takes the place of one in the month before still says so when it is
// handed over, after that one was.
func TestSupersededInTheNextMonth(t *testing.T) {
	t.Parallel()
	end := old().AddDate(0, 1, 0)
	found, callback := full(end.Add(-time.Second)), full(end.Add(time.Second))
	found.Source = event.SourceNotification
	callback.UploadID, callback.Callback.RequestID = found.UploadID, "another"
	w := handLocal(t, found, callback)
	dbtest.Execute(t, w.pool.Config().ConnString(), fmt.Sprintf(`INSERT INTO upcall.recovered_uploads
		(event_id, received_at, source, upload_id, etag) VALUES ('%s', '%s', 'notification', '%s', 'D8E8')`,
		found.ID, found.ReceivedAt.Format(time.RFC3339), found.UploadID.UUID))
	callback.Supersedes = uuid.NullUUID{UUID: found.ID, Valid: true}
	w.want[callback.ID.String()] = lineOf(t, callback)
	for range 2 {
		w.drop(t)
	}
	w.wantAll(t)
	w.month(t, end.AddDate(0, 1, 0))
	w.drop(t)
	var left int
	if err := w.pool.QueryRow(t.Context(), "SELECT count(*) FROM upcall.recovered_uploads").Scan(&left); err != nil || left > 0 {
		t.Errorf("%d recovered uploads are left, %v", left, err)
	}
}

// TestOtherDirectories: an export and a month never go to the same directory, and one that is not there is not made.
func TestOtherDirectories(t *testing.T) {
	t.Parallel()
	for name, make := range targets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newHandWorld(t, make(t), oldEvents(old())...)
			cfg := Config{Source: pages(t, w.pool), Target: w.target, Format: formatNamed(t, "csv"), Now: time.Now}
			runAll(t, cfg)
			_, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, w.keeper(t))
			if !errors.Is(err, ErrOther) || !errors.Is(err, eventstore.ErrHeldBack) {
				t.Errorf("a month beside an export: %v", err)
			}
			w.place = make(t)
			w.drop(t)
			cfg.Target = w.target
			if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrOther) {
				t.Errorf("an export beside a month: %v", err)
			}
			w.wantAll(t)
		})
	}
	w := handLocal(t, oldEvents(old())...)
	w.target = Local(filepath.Join(w.dir, "not-mounted"))
	_, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, w.keeper(t))
	if !errors.Is(err, os.ErrNotExist) || !errors.Is(err, eventstore.ErrHeldBack) || len(w.tables(t)) != 1 {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := NewHandOver(Local("x.parquet"), false); err == nil {
		t.Error("a file is taken for a directory")
	}
}

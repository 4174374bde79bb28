package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/duckdb"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/toolchain"
)

// keptDays is the retention of these tests.
const keptDays = 40

// old returns the beginning of a month that is long over by PostgreSQL's clock, too.
func old() time.Time {
	now := time.Now().UTC()
	return time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, -5, 0)
}

// oldEvents are of three days of the month that begins then, the first and last of which are at its ends.
func oldEvents(begins time.Time) []*event.Event {
	end := begins.AddDate(0, 1, 0).Add(-time.Microsecond)
	events := []*event.Event{full(begins), full(begins), bare(begins.Add(time.Microsecond)), bare(end), full(end)}
	for i := range 40 {
		e := keyed(begins.AddDate(0, 0, 9).Add(time.Duration(i)*time.Millisecond), fmt.Sprintf("k%d", i))
		e.Callback.Size, e.Callback.CRC64 = new(int64(i)), new(uint64(1<<63+uint64(i)))
		events = append(events, e)
	}
	return events
}

// A handWorld is a database with months that have expired, and where they go.
type handWorld struct {
	pool *pgxpool.Pool
	place
	want map[string]string // events by their ids
}

// A place is where months go.
type place struct {
	target Target
	dir    string // "" in OSS
}

func newHandWorld(t *testing.T, to place, events ...*event.Event) *handWorld {
	t.Helper()
	w := &handWorld{pool: dbtest.Pool(t, eventstore.Open), place: to, want: make(map[string]string)}
	w.add(t, events...)
	return w
}

// handLocal hands over to a directory.
func handLocal(t *testing.T, events ...*event.Event) *handWorld {
	t.Helper()
	dir := t.TempDir()
	return newHandWorld(t, place{Local(dir), dir}, events...)
}

// add records events, which are to be handed over.
func (w *handWorld) add(t *testing.T, events ...*event.Event) {
	t.Helper()
	for _, e := range events {
		w.month(t, e.ReceivedAt)
		w.want[e.ID.String()] = lineOf(t, e)
	}
	record(t, w.pool, events...)
}

// month makes a partition as the recorder does.
func (w *handWorld) month(t *testing.T, at time.Time) {
	t.Helper()
	from := time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
	name := from.Format("upcall.upload_events_2006_01")
	dbtest.Execute(t, w.pool.Config().ConnString(), fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %[1]s (LIKE upcall.upload_events INCLUDING ALL);
		DO $$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = '%[1]s'::regclass) THEN
				ALTER TABLE upcall.upload_events ATTACH PARTITION %[1]s FOR VALUES FROM ('%[2]s+00') TO ('%[3]s+00');
			END IF;
		END $$`, name, from.Format(time.DateTime), from.AddDate(0, 1, 0).Format(time.DateTime)))
}

func lineOf(t *testing.T, e *event.Event) string {
	t.Helper()
	line, err := e.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func (w *handWorld) keeper(t *testing.T) *HandOver {
	t.Helper()
	h, err := NewHandOver(w.target, false)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// drop drops a month, and must succeed.
func (w *handWorld) drop(t *testing.T) eventstore.Dropped {
	t.Helper()
	got, err := eventstore.DropKept(t.Context(), w.pool, time.Now(), keptDays, w.keeper(t))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// tables returns the tables with events, those that expired among them.
func (w *handWorld) tables(t *testing.T) (names []string) {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), `SELECT relname::text FROM pg_class WHERE relnamespace = 'upcall'::regnamespace
		AND relkind = 'r' AND relname ~ '^(upload|expired)_events_\d' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// inTables returns the events that PostgreSQL has.
func (w *handWorld) inTables(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, table := range w.tables(t) {
		rows, err := w.pool.Query(t.Context(), "SELECT "+eventstore.EventColumns()+" FROM upcall."+table+" AS upload_events")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			e := new(event.Event)
			if err := rows.Scan(eventstore.EventFields(e)...); err != nil {
				t.Fatal(err)
			}
			found[e.ID.String()] = lineOf(t, e)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// inFiles returns the events that the files of two months have.
func (w *handWorld) inFiles(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	h := w.keeper(t)
	for day := old(); day.Before(old().AddDate(0, 2, 0)); day = day.AddDate(0, 0, 1) {
		parts, _, err := h.parts(t.Context(), eventstore.Span{Since: day})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			for p.row != nil {
				e := eventIn(t, p)
				if _, twice := found[e.ID.String()]; twice {
					t.Errorf("event %s is in the files twice", e.ID)
				}
				found[e.ID.String()] = lineOf(t, e)
				if err := p.advance(); err != nil {
					t.Fatal(err)
				}
			}
		}
		closeAll(parts)
	}
	return found
}

// eventIn returns the current event of a part.
func eventIn(t *testing.T, p *part) *event.Event {
	t.Helper()
	e := new(event.Event)
	for i, c := range event.Members {
		v := p.row[i]
		if v.IsNull() {
			continue
		}
		var err error
		switch field := c.Field(e).(type) {
		case *uuid.UUID:
			*field = uuid.UUID(v.ByteArray())
		case *uuid.NullUUID:
			*field = uuid.NullUUID{UUID: uuid.UUID(v.ByteArray()), Valid: true}
		case *time.Time:
			*field = time.UnixMicro(v.Int64()).UTC()
		case *string:
			*field = string(v.ByteArray())
		case **int64:
			*field = new(v.Int64())
		case **int32:
			*field = new(v.Int32())
		case **uint64:
			*field = new(v.Uint64())
		case *netip.Addr:
			*field, err = netip.ParseAddr(string(v.ByteArray()))
		case *map[string]json.RawMessage:
			err = json.Unmarshal(v.ByteArray(), field)
		default:
			t.Fatalf("there is no reading of %s", c.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// wantAll holds that every event is in PostgreSQL, or in the files as it was there.
func (w *handWorld) wantAll(t *testing.T) {
	t.Helper()
	got, here := w.inFiles(t), w.inTables(t)
	for id, line := range w.want {
		if there, ok := got[id]; ok && here[id] == "" {
			if there != line {
				t.Errorf("event %s (-recorded +handed over)\n%s", id, cmp.Diff(line, there))
			}
		} else if here[id] == "" {
			t.Errorf("event %s is neither in PostgreSQL nor handed over", id)
		}
	}
	for id := range got {
		if w.want[id] == "" {
			t.Errorf("event %s was handed over, and never recorded", id)
		}
	}
}

// targets are where months go.
var targets = map[string]func(t *testing.T) place{
	"directory": func(t *testing.T) place { dir := t.TempDir(); return place{Local(dir), dir} },
	"OSS": func(t *testing.T) place {
		target, err := bucketOf(ossfake.Start(t), "history")
		if err != nil {
			t.Fatal(err)
		}
		return place{target, ""}
	},
}

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

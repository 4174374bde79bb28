package export

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/testing/ossfake"
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

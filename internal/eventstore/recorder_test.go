package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// at is when events of these tests are received by default.
var at = time.Date(2026, 11, 22, 10, 30, 0, 123456000, time.UTC)

// patient sets a long CommitTimeout, like the timeouts of the tests' pools, unless it is set.
func patient(c Config) Config {
	if c.CommitTimeout == 0 {
		c.CommitTimeout = time.Minute
	}
	return c
}

func newRecorder(t *testing.T, config Config) *Recorder {
	t.Helper()
	config.Pool = dbtest.Beside(t, config.Pool, OpenRecorder)
	r, err := NewRecorder(patient(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func smallEvent() *event.Event {
	return &event.Event{ID: uuid.New(), ReceivedAt: at, Callback: callbackspec.Callback{Bucket: "demo", Object: "a.txt"}}
}

func record(t *testing.T, r *Recorder, e *event.Event, wantDuplicate bool) {
	t.Helper()
	duplicate, err := r.Record(t.Context(), e)
	if err != nil || duplicate != wantDuplicate {
		t.Errorf("got duplicate %t, %v; want %t", duplicate, err, wantDuplicate)
	}
}

// recorded returns all events, the oldest first.
func recorded(t *testing.T, pool *pgxpool.Pool) (events []event.Event) {
	t.Helper()
	err := Each(t.Context(), dbtest.Beside(t, pool, OpenReader), func(e *event.Event) { events = append(events, *e) })
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(events, func(a, b event.Event) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	return events
}

func wantCount(t *testing.T, pool *pgxpool.Pool, want int) {
	t.Helper()
	var events, ids int
	err := pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM upcall.upload_events),
		(SELECT count(*) FROM upcall.callback_ids)`).Scan(&events, &ids)
	if err != nil || events != want || ids != want {
		t.Errorf("%d events and %d ids, %v; want %d of each", events, ids, err, want)
	}
}

func execute(t *testing.T, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestWhatIsRecordedIsRead(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool})

	full := newEvent()
	full.ReceivedAt = at.Add(time.Second)
	full.Source = "spool"
	full.Callback.Object = "照片/ünï'\"\\{}.jpg"
	full.Callback.VPCID = "vpc-1"
	*full.Callback.CRC64 = math.MaxUint64
	*full.Callback.Size = math.MaxInt64
	full.Callback.ClientIP = netip.MustParseAddr("fe80::1%eth0")
	full.Callback.Vars = map[string]json.RawMessage{"x:n": json.RawMessage(`1`), "<&>": json.RawMessage(`"é"`),
		"null": json.RawMessage(`null`)}
	empty := &event.Event{ID: uuid.New(), ReceivedAt: at}
	record(t, r, full, false)
	record(t, r, empty, false)
	record(t, r, full, true)

	got := recorded(t, pool)
	full.Callback.ClientIP = netip.MustParseAddr("fe80::1") // inet has no zones
	empty.Source = event.SourceCallback
	empty.Callback.Vars = map[string]json.RawMessage{}
	same := cmp.Options{
		cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	}
	if diff := cmp.Diff([]event.Event{*empty, *full}, got, same); diff != "" {
		t.Error(diff)
	}
	var nulls int
	if err := pool.QueryRow(t.Context(), `SELECT num_nulls(bucket, object_key, etag, size, mime_type, image_width, image_height,
		image_format, crc64, content_md5, vpc_id, client_ip, request_id, operation, upload_id)
		FROM upcall.upload_events WHERE id = $1`, empty.ID).Scan(&nulls); err != nil || nulls != 15 {
		t.Errorf("%d nulls, %v; want 15", nulls, err)
	}
	for e, want := range map[*event.Event]bool{full: true, empty: true, smallEvent(): false} {
		if found, err := r.Find(t.Context(), e.ID, e.UploadID); err != nil || found != want {
			t.Errorf("Find: got %t, %v; want %t", found, err, want)
		}
	}
}

func TestOneEventInOneBatch(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	w := newWriter(patient(Config{Pool: dbtest.Beside(t, pool, OpenRecorder)}).withDefaults(), eventKind)
	one, other := smallEvent(), smallEvent()
	later := *one
	later.ReceivedAt = at.Add(time.Hour)
	batch := requests(t, one, other, &later, one)
	answers := answersOf(w, batch)
	want := []string{"new", "new", "duplicate", "duplicate"}
	if diff := cmp.Diff(want, answers); diff != "" {
		t.Error(diff)
	}
	wantCount(t, pool, 2)
	for _, e := range recorded(t, pool) {
		if !e.ReceivedAt.Equal(at) {
			t.Errorf("got %v; want the first event", e)
		}
	}
}

// requests makes a batch, as gather would.
func requests(t *testing.T, events ...*event.Event) []*request[eventRow] {
	t.Helper()
	var batch []*request[eventRow]
	for _, e := range events {
		row, err := newEventRow(e)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, &request[eventRow]{id: e.ID, row: row, answer: make(chan answer, 1)})
	}
	return batch
}

// answersOf records a batch and returns the answer to each request, in order.
func answersOf(w *writer[eventRow], batch []*request[eventRow]) []string {
	w.record(context.Background(), slices.Clone(batch))
	var texts []string
	for _, q := range batch {
		switch a := <-q.answer; {
		case errors.Is(a.err, event.ErrDeadLetter):
			texts = append(texts, "dead letter")
		case errors.Is(a.err, event.ErrNoRowFits):
			texts = append(texts, "no row fits")
		case errors.Is(a.err, event.ErrUnavailable):
			texts = append(texts, "unavailable")
		case a.err != nil:
			texts = append(texts, a.err.Error())
		case a.outcome == known:
			texts = append(texts, "duplicate")
		case a.outcome == revoked:
			texts = append(texts, "revoked")
		case a.outcome == fresh:
			texts = append(texts, "new")
		}
	}
	return texts
}

func TestBadRowHurtsOnlyItself(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	w := newWriter(patient(Config{Pool: dbtest.Beside(t, pool, OpenRecorder)}).withDefaults(), eventKind)
	var events []*event.Event
	var want []string
	for i := range 100 {
		e := smallEvent()
		outcome := "new"
		switch i {
		case 17: // jsonb cannot hold NUL
			e.Callback.Vars, outcome = map[string]json.RawMessage{"x:a": json.RawMessage(`"\u0000"`)}, "dead letter"
		case 60: // half a surrogate pair
			e.Callback.Vars, outcome = map[string]json.RawMessage{"x:a": json.RawMessage(`"\ud800"`)}, "dead letter"
		case 61: // more digits than numeric can have
			e.Callback.Vars, outcome = map[string]json.RawMessage{"x:a": json.RawMessage(`1e200000`)}, "dead letter"
		case 99:
			e, outcome = events[98], "duplicate"
		}
		events, want = append(events, e), append(want, outcome)
	}
	events, want = append(events, events[17]), append(want, "dead letter")
	if diff := cmp.Diff(want, answersOf(w, requests(t, events...))); diff != "" {
		t.Error(diff)
	}
	wantCount(t, pool, 96)
}

func TestBadTextIsRefusedBeforehand(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, Config{Pool: dbtest.Open(t, "postgres://nobody@127.0.0.1:1/none", Open)})
	for name, spoil := range map[string]func(*event.Event){
		"NUL in key":            func(e *event.Event) { e.Callback.Object = "a\x00b" },
		"bad UTF-8 in key":      func(e *event.Event) { e.Callback.Object = "a\xffb" },
		"bad UTF-8 in bucket":   func(e *event.Event) { e.Callback.Bucket = "\xc0\x80" },
		"surrogate in type":     func(e *event.Event) { e.Callback.MimeType = "\xed\xa0\x80" },
		"bad UTF-8 in variable": func(e *event.Event) { e.Callback.Vars = map[string]json.RawMessage{"a": json.RawMessage("\"\xff\"")} },
		"variable is not JSON":  func(e *event.Event) { e.Callback.Vars = map[string]json.RawMessage{"a": json.RawMessage(`{`)} },
		"bad source":            func(e *event.Event) { e.Source = "\x00" },
	} {
		e := smallEvent()
		spoil(e)
		if _, err := r.Record(t.Context(), e); !errors.Is(err, event.ErrUnstorable) {
			t.Errorf("%s: got %v, want event.ErrUnstorable", name, err)
		}
	}
}

// TestManyCopiesThroughTwoRecorders sends thousands of copies in different orders. Each event has
// one row and one "new" answer, and there are no deadlocks.
func TestManyCopiesThroughTwoRecorders(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	pool := dbtest.Open(t, url, Open)
	recorders := []*Recorder{
		newRecorder(t, Config{Pool: pool, MaxBatch: 32}),
		newRecorder(t, Config{Pool: dbtest.Open(t, url, Open), MaxBatch: 32, Writers: 3}),
	}
	const events, copies = 40, 100
	var fresh [events]atomic.Int32
	var all []*event.Event
	for range events {
		all = append(all, smallEvent())
	}
	var group sync.WaitGroup
	for c := range copies {
		for i := range events {
			i = (i*7 + c*13) % events
			group.Go(func() {
				duplicate, err := recorders[c%2].Record(t.Context(), all[i])
				if err != nil {
					t.Error(err)
				}
				if !duplicate {
					fresh[i].Add(1)
				}
			})
		}
	}
	group.Wait()
	for i := range fresh {
		if n := fresh[i].Load(); n != 1 {
			t.Errorf("event %d was new %d times", i, n)
		}
	}
	wantCount(t, pool, events)
}

func TestSerializationFailureIsRetried(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]error{1: nil, 3: nil, 1000: event.ErrNoRowFits} {
		pool := dbtest.Pool(t, Open)
		execute(t, pool, "CREATE SEQUENCE tries")
		execute(t, pool, fmt.Sprintf(`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				IF nextval('tries') <= %d THEN RAISE EXCEPTION 'again' USING ERRCODE = '40P01'; END IF;
				RETURN NEW;
			END $$`, failures))
		execute(t, pool, "CREATE TRIGGER fail BEFORE INSERT ON upcall.callback_ids FOR EACH ROW EXECUTE FUNCTION fail()")
		r := newRecorder(t, Config{Pool: pool})
		if _, err := r.Record(t.Context(), smallEvent()); !errors.Is(err, want) {
			t.Errorf("%d failures: got %v, want %v", failures, err, want)
		}
	}
}

func TestCloseAnswersWhatWasAccepted(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool, MaxBatch: 8})
	var recorded, refused atomic.Int32
	var group sync.WaitGroup
	for i := range 500 {
		group.Go(func() {
			switch _, err := r.Record(t.Context(), smallEvent()); {
			case err == nil:
				recorded.Add(1)
			case errors.Is(err, ErrClosed) && errors.Is(err, event.ErrUnavailable):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
		if i == 250 {
			group.Go(r.Close)
		}
	}
	group.Wait()
	r.Close() // again
	if recorded.Load()+refused.Load() != 500 {
		t.Errorf("%d recorded, %d refused, of 500", recorded.Load(), refused.Load())
	}
	wantCount(t, pool, int(recorded.Load()))
	if _, err := r.Record(t.Context(), smallEvent()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	pool := dbtest.Open(t, "postgres://nobody@127.0.0.1:1/none", OpenRecorder)
	ordinary := dbtest.Beside(t, pool, Open)
	for _, config := range []Config{{}, {Pool: ordinary}, {Pool: pool, Writers: -1}, {Pool: pool, MaxBatch: -1}, {Pool: pool,
		Queue: -1}, {Pool: pool, CommitTimeout: -1}} {
		if _, err := NewRecorder(config); err == nil || !strings.HasPrefix(err.Error(), "recorder config: ") {
			t.Errorf("%+v: got %v", config, err)
		}
	}
}

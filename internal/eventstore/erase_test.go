package eventstore

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
	"upcall/internal/event"
)

const (
	theirName    = "erin-71b0c2"
	theirNumber  = "4207100717"
	theirAddress = "198.51.100.77"
)

// eraser returns one on the database of a pool.
func eraser(t *testing.T, pool *pgxpool.Pool, report func(string)) *Eraser {
	t.Helper()
	if report == nil {
		report = func(string) {}
	}
	return NewEraser(dbtest.Beside(t, pool, Open), dbtest.Beside(t, pool, OpenReader), report)
}

// theirEvent returns an event with a value of the variable uid, as JSON.
func theirEvent(uid string, at time.Time) *event.Event {
	e := newEvent()
	e.ReceivedAt, e.UploadID, e.Acknowledged = at, uuid.NullUUID{}, true
	e.Callback.ClientIP = netip.MustParseAddr(theirAddress)
	e.Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(uid), "album": json.RawMessage(`"of ` + theirName + `"`)}
	return e
}

// holders returns the tables in which some row holds a text.
func holders(t *testing.T, pool *pgxpool.Pool, text string) []string {
	t.Helper()
	found := []string{}
	tables := lines(t, pool, "SELECT relname FROM pg_class WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'r' ORDER BY 1")
	for _, table := range tables {
		var rows int
		sql := "SELECT count(*) FROM " + pgx.Identifier{"upcall", table}.Sanitize() + " r WHERE r::text LIKE $1"
		if err := pool.QueryRow(t.Context(), sql, "%"+text+"%").Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if rows > 0 {
			found = append(found, fmt.Sprintf("%s %d", table, rows))
		}
	}
	return found
}

// fill gives each place something of a user, whose uid is a JSON value, and of another one.
func fill(t *testing.T, pool *pgxpool.Pool, uid string) (upload IssuedUpload) {
	t.Helper()
	r, ledger := newRecorder(t, Config{Pool: pool}), newLedger(t, Config{Pool: pool})
	upload = smallUpload()
	upload.Vars = map[string]string{"uid": strings.Trim(uid, `"`), "album": "of " + theirName}
	issue(t, ledger, upload)
	issued := theirEvent(uid, at)
	issued.UploadID = uuid.NullUUID{UUID: upload.ID, Valid: true}
	// Its body holds no variables, but it is of the upload.
	bare := theirEvent(uid, at.Add(time.Minute))
	bare.UploadID, bare.Callback.Vars = issued.UploadID, nil
	events := []*event.Event{issued, bare}
	for _, months := range []int{1, 5, 9} {
		events = append(events, theirEvent(uid, at.AddDate(0, -months, 0)))
	}
	other := theirEvent(`"someone else"`, at)
	other.Callback.Vars["album"] = json.RawMessage(`"summer"`)
	other.Callback.ClientIP = netip.MustParseAddr("192.0.2.1")
	for _, e := range append(events, other) {
		record(t, r, e, false)
		for generation := range 2 {
			executeArgs(t, pool, `INSERT INTO upcall.rollup_objects (generation, bucket, object_key, uploads, sources, first_at, first_id,
				first_mime_type, first_source, received_at, event_id, hourly_mime_type, source, upload_id, client_ip, vars)
				SELECT $1, bucket, object_key, 1, 1, received_at, id, '', source, received_at, id, '', source, upload_id, client_ip, vars
				FROM upcall.upload_events WHERE id = $2`, generation, e.ID)
		}
		executeArgs(t, pool, `INSERT INTO upcall.hook_attempts (endpoint_id, event_id, reason, attempt, at, delivered, took, answer)
			SELECT gen_random_uuid(), id, 'first', 1, now(), true, '1s', 'thanks, ' || (vars->>'album') || host(client_ip)
			FROM upcall.upload_events WHERE id = $1 AND vars ? 'album' AND received_at > $2`, e.ID, at.AddDate(0, -6, 0)) // 14 days, really
	}
	executeArgs(t, pool, `INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, source_addr, upload_id)
		VALUES (gen_random_uuid(), 'token_revoked', now(), $1, $2)`, theirAddress, upload.ID)
	// What waits for a callback: of the upload, of its object, of a value, and of someone else.
	ofUpload, ofObject, ofValue, ofOther := theirEvent(uid, at), theirEvent(uid, at), theirEvent(uid, at), theirEvent(`"someone else"`, at)
	ofUpload.UploadID, ofObject.Callback.Vars = issued.UploadID, nil
	ofObject.Callback.Bucket, ofObject.Callback.Object = upload.Bucket, upload.Object
	ofOther.Callback.Vars["album"], ofOther.Callback.ClientIP = other.Callback.Vars["album"], other.Callback.ClientIP
	for _, e := range []*event.Event{ofUpload, ofObject, ofValue, ofOther} {
		e.Source = event.SourceNotification
		record(t, r, e, false)
	}
	// Retention has begun with it.
	old := at.AddDate(0, -5, 0)
	executeArgs(t, pool, `ALTER TABLE upcall.upload_events DETACH PARTITION upcall.`+partitionName(old))
	executeArgs(t, pool, `ALTER TABLE upcall.`+partitionName(old)+` RENAME TO `+month{begins: monthOf(old)}.expiredName())
	// Retention has dropped it, but not its object.
	executeArgs(t, pool, `DROP TABLE upcall.`+partitionName(at.AddDate(0, -9, 0)))
	for text, want := range map[string]string{
		theirName:    "expired_events_2026_06 1 hook_attempts_%s 3 issued_uploads 1 notifications 2 rollup_objects 8 %s10 1 %[2]s11 1",
		theirAddress: "expired_events_2026_06 1 hook_attempts_%s 3 notifications 3 refused_callbacks 1 rollup_objects 10 %s10 1 %[2]s11 2",
	} {
		want = fmt.Sprintf(want, time.Now().UTC().Format("2006_01"), "upload_events_2026_")
		if diff := cmp.Diff(want, strings.Join(holders(t, pool, text), " ")); diff != "" {
			t.Fatalf("%s: %s", text, diff)
		}
	}
	return upload
}

func executeArgs(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

const (
	whatStays = `SELECT to_jsonb(e) - 'vars' - 'client_ip' || jsonb_build_object('xid', recorded_xid::text)
		FROM upcall.upload_events e ORDER BY id`
	ofOthers = `SELECT to_jsonb(e) || to_jsonb(o) FROM upcall.upload_events e JOIN upcall.rollup_objects o ON event_id = e.id
		WHERE e.vars->>'uid' = 'someone else' ORDER BY generation`
)

// TestErase erases what a user's variable is in, wherever it is, and nothing else.
func TestErase(t *testing.T) {
	t.Parallel()
	for name, uid := range map[string]string{"text": `"` + theirName + `"`, "number": theirNumber} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			fill(t, pool, uid)
			stays, others := lines(t, pool, whatStays), lines(t, pool, ofOthers)
			value := strings.Trim(uid, `"`)
			got, err := eraser(t, pool, nil).Erase(t.Context(), EraseRequest{Variable: "uid", Value: value})
			if err != nil {
				t.Fatal(err)
			}
			want := Erased{Events: 7, Objects: 10, Issued: 1, Attempts: 3, Refusals: 1}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			for _, text := range []string{value, theirName, theirAddress} {
				if found := holders(t, pool, text); len(found) > 0 {
					t.Errorf("%s is still in %v", text, found)
				}
			}
			if diff := cmp.Diff(stays, lines(t, pool, whatStays)); diff != "" {
				t.Errorf("more has changed: %s", diff)
			}
			if diff := cmp.Diff(others, lines(t, pool, ofOthers)); diff != "" || len(others) != 2 {
				t.Errorf("of someone else: %s", diff)
			}
			wantRow(t, pool, "uid true true", `SELECT variable || ' ' || (finished_at >= asked_at) || ' ' || (digest = sha256(salt || $1))
				FROM upcall.erasures`, []byte(value))
			again, err := eraser(t, pool, nil).Erase(t.Context(), EraseRequest{Variable: "uid", Value: value})
			if err != nil || again != (Erased{}) {
				t.Errorf("once more: %+v, %v", again, err)
			}
		})
	}
}

// TestEraseUpload erases one upload.
func TestEraseUpload(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	upload := fill(t, pool, `"`+theirName+`"`)
	got, err := eraser(t, pool, nil).Erase(t.Context(), EraseRequest{Upload: uuid.NullUUID{UUID: upload.ID, Valid: true}})
	if diff := cmp.Diff(Erased{Events: 4, Objects: 4, Issued: 1, Attempts: 1, Refusals: 1}, got); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	for _, table := range []string{"issued_uploads", "upload_events_2026_11", "refused_callbacks"} {
		if found := fmt.Sprint(holders(t, pool, theirAddress), holders(t, pool, theirName)); strings.Contains(found, table) {
			t.Errorf("it is still in %s", table)
		}
	}
	none := EraseRequest{Upload: uuid.NullUUID{UUID: uuid.New(), Valid: true}}
	if got, err := eraser(t, pool, nil).Erase(t.Context(), none); err != nil || got != (Erased{}) {
		t.Errorf("an upload that is not there: %+v, %v", got, err)
	}
}

// TestEraseReachesLateEvents records events that were received before, and after.
func TestEraseReachesLateEvents(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, Open)
	r := newRecorder(t, Config{Pool: pool})
	upload := uuid.NullUUID{UUID: uuid.New(), Valid: true}
	for _, request := range []EraseRequest{{Variable: "uid", Value: theirName}, {Variable: "uid", Value: theirNumber}, {Upload: upload}} {
		if _, err := eraser(t, pool, nil).Erase(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	// One that was asked for before the events are received that it is about.
	longAgo := "someone's since then"
	if _, err := eraser(t, pool, nil).Erase(t.Context(), EraseRequest{Variable: "uid", Value: longAgo}); err != nil {
		t.Fatal(err)
	}
	execute(t, pool, "UPDATE upcall.erasures SET asked_at = now() - interval '2 hours' WHERE id = (SELECT max(id) FROM upcall.erasures)")
	earlier, later := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, tt := range []struct {
		uid    string
		upload uuid.NullUUID
		at     time.Time
		kept   bool
	}{
		{`"` + theirName + `"`, uuid.NullUUID{}, earlier, false}, {theirNumber, uuid.NullUUID{}, earlier, false},
		{`"` + theirNumber + `"`, uuid.NullUUID{}, earlier, false}, {`"x"`, upload, earlier, false},
		{`"` + theirName + `"`, uuid.NullUUID{}, later, true}, {`"x"`, upload, later, true},
		{`"` + longAgo + `"`, uuid.NullUUID{}, earlier, true},
		{`"x"`, uuid.NullUUID{}, earlier, true}, {`"` + theirName + `x"`, uuid.NullUUID{UUID: uuid.New(), Valid: true}, earlier, true},
	} {
		e := theirEvent(tt.uid, tt.at)
		e.UploadID = tt.upload
		record(t, r, e, false)
		wantRow(t, pool, tt.kept, "SELECT vars <> '{}' FROM upcall.upload_events WHERE id = $1", e.ID)
		wantRow(t, pool, tt.kept, "SELECT client_ip IS NOT NULL FROM upcall.upload_events WHERE id = $1", e.ID)
	}
}

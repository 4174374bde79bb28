package eventstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
	"upcall/migrations"
)

const (
	// eraseBatch is how many rows are erased in one transaction, which the consumer of roll-ups waits
	// for, and erasePage how many are looked up for several of them. Objects are not looked up in their
	// order, in which they are read slowly, but all of them for each page.
	eraseBatch, erasePage, objectPage = 200, 2000, 20_000
	// eraseTries is how often a step is tried that something else was in the way of.
	eraseTries, erasePause = 50, 200 * time.Millisecond
	// eraseLock is how long recording may wait for [Eraser.begin].
	eraseLock = "200ms"

	undefinedTable   = "42P01"
	lockNotAvailable = "55P03"
)

// An EraseRequest says what to erase: what belongs to an upload, or has this value of a variable.
type EraseRequest struct {
	Upload          uuid.NullUUID
	Variable, Value string
}

// Erased counts the rows that a request has changed.
type Erased struct {
	Events   int64 `json:"events"`
	Objects  int64 `json:"objects"`  // in both generations of roll-ups
	Issued   int64 `json:"issued"`   // rows of the ledger
	Attempts int64 `json:"attempts"` // answers to deliveries
	Refusals int64 `json:"refusals"` // addresses
}

// An Eraser erases variables and client addresses.
//
// It notes the request first. From then on the recorder records no event that was received before
// with what is to be erased, and receivers erase what is in their spools. Then it goes through the
// tables, in steps, each of which is short. recorded_xid stays, so that no consumer of the log reads
// an event again. If it is interrupted, Erase with the same request goes on.
type Eraser struct {
	// Filters are the names of endpoints of hooks whose filters have the value, after Erase.
	Filters []string

	pool, reader *pgxpool.Pool
	report       func(line string)

	request EraseRequest
	id      int64
	askedAt time.Time
	done    []string // tables
}

// NewEraser returns one that reports what it is at. The pools are from [Open] and [OpenReader].
func NewEraser(pool, reader *pgxpool.Pool, report func(line string)) *Eraser {
	return &Eraser{pool: pool, reader: reader, report: report}
}

// Erase erases what has been received, and returns how much that was, also by an earlier,
// interrupted call. The error wraps [ErrMistake] if our role may not.
func (x *Eraser) Erase(ctx context.Context, request EraseRequest) (Erased, error) {
	if err := x.mayErase(ctx); err != nil {
		return Erased{}, err
	}
	x.request = request
	for _, step := range []func(context.Context) error{x.begin, x.waiting, x.issued, x.events, x.objects, x.filters} {
		if err := step(ctx); err != nil {
			return Erased{}, fmt.Errorf("erase: %w", err)
		}
	}
	var total Erased
	_, err := execOne(ctx, x.pool, func(rows pgx.Rows) (err error) {
		total, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Erased])
		return err
	}, "UPDATE upcall.erasures SET finished_at = clock_timestamp() WHERE id = $1 RETURNING events, objects, issued, attempts, refusals", x.id)
	if err != nil {
		return Erased{}, fmt.Errorf("erase: %w", unavailable(err))
	}
	return total, nil
}

// begin notes the request, and waits until all recorders know of it.
func (x *Eraser) begin(ctx context.Context) error {
	if err := x.resume(ctx); err != nil {
		return err
	}
	if x.id == 0 {
		var variable *string
		var salt, digest []byte
		if !x.request.Upload.Valid {
			salt = make([]byte, 16)
			rand.Read(salt)
			variable, digest = &x.request.Variable, event.ErasureDigest(salt, x.request.Value)
		}
		_, err := execOne(ctx, x.pool, x.scanNote, `INSERT INTO upcall.erasures (upload_id, variable, salt, digest)
			VALUES ($1, $2, $3, $4) RETURNING id, asked_at, months`, x.request.Upload, variable, salt, digest)
		if err != nil {
			return fmt.Errorf("note the request: %w", err)
		}
	}
	// A batch that is being recorded may not know of the request. This waits until it has ended, and the
	// steps that follow see it: each holds the table, and what comes later reads the request, because
	// PostgreSQL locks tables before it takes the snapshot. Dumps of the database do not hold it up.
	return x.retry(ctx, func() error {
		return Transact(ctx, x.pool, func(tx pgx.Tx) error {
			const lock = "; LOCK TABLE upcall.refused_callbacks, upcall.notifications IN SHARE MODE"
			_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+eraseLock+"'"+lock)
			return err
		})
	})
}

func (x *Eraser) scanNote(rows pgx.Rows) error {
	if !rows.Next() {
		return rows.Err()
	}
	return rows.Scan(&x.id, &x.askedAt, &x.done)
}

// resume looks for the same request, if it was interrupted. What was received since is erased, too, so
// all is done again but the months that were over when it was made.
func (x *Eraser) resume(ctx context.Context) error {
	type note struct {
		ID           int64
		Upload       uuid.NullUUID
		Variable     *string
		Salt, Digest []byte
	}
	var notes []note
	_, err := execOne(ctx, x.pool, func(rows pgx.Rows) (err error) {
		notes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[note])
		return err
	}, "SELECT id, upload_id, variable, salt, digest FROM upcall.erasures WHERE finished_at IS NULL ORDER BY id")
	if err != nil {
		return fmt.Errorf("look for the request: %w", err)
	}
	for _, n := range notes {
		same := n.Upload.Valid && n.Upload == x.request.Upload || n.Variable != nil && *n.Variable == x.request.Variable &&
			slices.Equal(n.Digest, event.ErasureDigest(n.Salt, x.request.Value))
		if !same {
			continue
		}
		_, err := execOne(ctx, x.pool, x.scanNote,
			"UPDATE upcall.erasures SET asked_at = clock_timestamp() WHERE id = $1 RETURNING id, asked_at, months", n.ID)
		if err != nil {
			return fmt.Errorf("go on with the request: %w", err)
		}
		x.report("going on with what was interrupted")
		return nil
	}
	return nil
}

// issued erases the ledger, and the events of the uploads that it finds there.
func (x *Eraser) issued(ctx context.Context) error {
	x.report("erasing issued uploads")
	if x.request.Upload.Valid {
		return x.eraseIssued(ctx, []uuid.UUID{x.request.Upload.UUID})
	}
	var last uuid.UUID
	for {
		var found []uuid.UUID
		err := x.read(ctx, func(rows pgx.Rows) (err error) {
			found, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
			return err
		}, `SELECT upload_id FROM upcall.issued_uploads WHERE vars->>$1 = $2 AND upload_id > $3 ORDER BY upload_id LIMIT $4`,
			x.request.Variable, x.request.Value, last, erasePage)
		if err != nil || len(found) == 0 {
			return err
		}
		for some := range slices.Chunk(found, eraseBatch) {
			if err := x.eraseIssued(ctx, some); err != nil {
				return err
			}
		}
		last = found[len(found)-1]
	}
}

// eraseIssued erases events of uploads, then the uploads, so that those are found again if it is
// interrupted in between.
func (x *Eraser) eraseIssued(ctx context.Context, uploads []uuid.UUID) error {
	if err := x.waitingOf(ctx, uploads); err != nil {
		return err
	}
	const ofUploads = "upload_id = ANY ($1)"
	if err := x.eraseEvents(ctx, "upcall.upload_events", false, ofUploads, uploads); err != nil {
		return err
	}
	return x.step(ctx, `
		WITH issued AS (
			UPDATE upcall.issued_uploads SET vars = '{}' WHERE upload_id = ANY ($2) AND vars <> '{}' RETURNING 1
		), refused AS (
			UPDATE upcall.refused_callbacks SET source_addr = NULL WHERE upload_id = ANY ($2) AND source_addr IS NOT NULL RETURNING 1
		)
		UPDATE upcall.erasures SET issued = issued + (SELECT count(*) FROM issued), refusals = refusals + (SELECT count(*) FROM refused)
		WHERE id = $1`, x.id, uploads)
}

// events erases events month by month, the latest first, also those that were detached.
func (x *Eraser) events(ctx context.Context) error {
	var tables []string
	err := x.read(ctx, func(rows pgx.Rows) (err error) {
		tables, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}, `SELECT relname::text FROM pg_class WHERE relnamespace = 'upcall'::regnamespace AND relkind = 'r'
		AND relname ~ '^(upload|expired)_events_\d{4}_\d{2}$' ORDER BY right(relname, 7) DESC, relname`)
	if err != nil {
		return err
	}
	for n, table := range tables {
		if slices.Contains(x.done, table) {
			continue
		}
		x.report(fmt.Sprintf("erasing events: %s (%d of %d)", table, n+1, len(tables)))
		name := pgx.Identifier{"upcall", table}.Sanitize()
		if x.request.Upload.Valid {
			err = x.eraseEvents(ctx, name, true, "upload_id = $1", x.request.Upload)
		} else {
			err = x.eraseEvents(ctx, name, true, "vars->>$1 = $2", x.request.Variable, x.request.Value)
		}
		if err != nil && migrations.ServerError(err).Code != undefinedTable { // retention has dropped it
			return err
		}
		// Late events of an earlier month are erased when they are recorded.
		if table[len(table)-len("2006_01"):] < x.askedAt.UTC().Format("2006_01") {
			if err := x.step(ctx, "UPDATE upcall.erasures SET months = months || $2::text WHERE id = $1", x.id, table); err != nil {
				return err
			}
		}
	}
	return nil
}

// eraseEvents erases the events of a table that meet a condition, and if ledger is set their uploads.
func (x *Eraser) eraseEvents(ctx context.Context, table string, ledger bool, condition string, args ...any) error {
	n := len(args)
	query := fmt.Sprintf(`SELECT received_at, id FROM %s WHERE %s AND (vars <> '{}' OR client_ip IS NOT NULL)
		AND (received_at, id) > ($%d::timestamptz, $%d::uuid) ORDER BY received_at, id LIMIT $%d`, table, condition, n+1, n+2, n+3)
	var last Place
	for {
		var found []Place
		err := x.read(ctx, func(rows pgx.Rows) (err error) {
			found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Place])
			return err
		}, query, slices.Concat(args, []any{last.At, last.ID, erasePage})...)
		if err != nil || len(found) == 0 {
			return err
		}
		for some := range slices.Chunk(found, eraseBatch) {
			if err := x.erase(ctx, table, some, ledger); err != nil {
				return err
			}
		}
		last = found[len(found)-1]
	}
}

// erase erases events, what roll-ups and perhaps the ledger have of them, and what applications answered.
func (x *Eraser) erase(ctx context.Context, table string, events []Place, ledger bool) error {
	times, ids := make([]time.Time, len(events)), make([]uuid.UUID, len(events))
	var messages []uuid.UUID // that told what was found about them
	for i, e := range events {
		times[i], ids[i] = e.At, e.ID
		messages = append(messages, event.FindingID(e.ID, event.Disputed), event.FindingID(e.ID, event.Gone))
	}
	return x.step(ctx, fmt.Sprintf(`
		WITH erased AS (
			UPDATE %s e SET vars = '{}', client_ip = NULL FROM unnest($2::timestamptz[], $3::uuid[]) AS given (received_at, id)
			WHERE e.received_at = given.received_at AND e.id = given.id
			RETURNING e.id, e.bucket, e.object_key, e.upload_id
		), objects AS (
			UPDATE upcall.rollup_objects o SET vars = '{}', client_ip = NULL FROM erased
			WHERE o.generation IN (0, 1) AND o.bucket = erased.bucket AND o.object_key = erased.object_key AND o.event_id = erased.id
			RETURNING 1
		), attempts AS (
			UPDATE upcall.hook_attempts SET answer = '' WHERE event_id = ANY ($3 || $5) AND answer <> '' RETURNING 1
		), issued AS (
			UPDATE upcall.issued_uploads SET vars = '{}'
			WHERE $4 AND upload_id IN (SELECT upload_id FROM erased) AND vars <> '{}' RETURNING 1
		), refused AS (
			UPDATE upcall.refused_callbacks SET source_addr = NULL
			WHERE upload_id IN (SELECT upload_id FROM erased) AND source_addr IS NOT NULL RETURNING 1
		)
		UPDATE upcall.erasures SET events = events + (SELECT count(*) FROM erased), objects = objects + (SELECT count(*) FROM objects),
			attempts = attempts + (SELECT count(*) FROM attempts), issued = issued + (SELECT count(*) FROM issued),
			refusals = refusals + (SELECT count(*) FROM refused)
		WHERE id = $1`, table), x.id, times, ids, ledger, messages)
}

// objects erases what roll-ups have of events that retention has dropped.
func (x *Eraser) objects(ctx context.Context) error {
	x.report("erasing objects")
	condition, args := "vars->>$1 = $2", []any{x.request.Variable, x.request.Value}
	if x.request.Upload.Valid {
		condition, args = "upload_id = $1 AND $2::text IS NOT NULL", []any{x.request.Upload, ""}
	}
	type object struct {
		Bucket, Key string
		Event       uuid.UUID
	}
	for {
		var found []object
		err := x.read(ctx, func(rows pgx.Rows) (err error) {
			found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[object])
			return err
		}, `SELECT bucket, object_key, event_id FROM upcall.rollup_objects WHERE `+condition+`
			AND (vars <> '{}' OR client_ip IS NOT NULL) LIMIT $3`, append(args, objectPage)...)
		if err != nil || len(found) == 0 {
			return err
		}
		for some := range slices.Chunk(found, eraseBatch) {
			var buckets, keys []string
			var ids []uuid.UUID
			for _, o := range some {
				buckets, keys, ids = append(buckets, o.Bucket), append(keys, o.Key), append(ids, o.Event)
			}
			// In both generations, because a row may just have been copied from one to the other.
			err := x.step(ctx, `
				WITH erased AS (
					UPDATE upcall.rollup_objects o SET vars = '{}', client_ip = NULL
					FROM unnest($2::text[], $3::text[], $4::uuid[]) AS given (bucket, object_key, event_id)
					WHERE o.generation IN (0, 1) AND o.bucket = given.bucket AND o.object_key = given.object_key
						AND o.event_id = given.event_id RETURNING 1
				)
				UPDATE upcall.erasures SET objects = objects + (SELECT count(*) FROM erased) WHERE id = $1`, x.id, buckets, keys, ids)
			if err != nil {
				return err
			}
		}
	}
}

// step runs a statement in a transaction that no batch of roll-ups overlaps. A batch locks the cursor of
// its consumer first, and copies what is in an event: it either has ended, and what it wrote is erased
// here, or reads the event after it is erased. The other generation's cursor comes first, as it does
// when that one takes the place of the current.
func (x *Eraser) step(ctx context.Context, sql string, args ...any) error {
	return x.retry(ctx, func() error {
		return Transact(ctx, x.pool, func(tx pgx.Tx) error {
			for _, consumer := range []string{"rollup/next", "rollup"} {
				if _, err := tx.Exec(ctx, "SELECT FROM upcall.feed_consumers WHERE name = $1 FOR UPDATE", consumer); err != nil {
					return err
				}
			}
			_, err := tx.Exec(ctx, sql, args...)
			return err
		})
	})
}

// retry repeats work that something was in the way of. All of it may be done twice.
func (x *Eraser) retry(ctx context.Context, work func() error) error {
	for try := 1; ; try++ {
		err := work()
		code := migrations.ServerError(err).Code
		passing := code == lockNotAvailable || code == deadlockDetected || code == serializationFailure
		if !passing || try == eraseTries {
			return err
		}
		if stopped := pause(ctx, erasePause); stopped != nil {
			return errors.Join(err, stopped)
		}
	}
}

// read runs a statement that only reads, for as long as it takes.
func (x *Eraser) read(ctx context.Context, read func(pgx.Rows) error, sql string, args ...any) error {
	_, err := execOne(ctx, x.reader, read, sql, args...)
	return err
}

// Erasures returns all requests that were made since some time.
func Erasures(ctx context.Context, pool *pgxpool.Pool, since time.Time) (erasures []event.Erasure, err error) {
	_, err = execOne(ctx, pool, func(rows pgx.Rows) (err error) {
		erasures, err = pgx.CollectRows(rows, pgx.RowToStructByPos[event.Erasure])
		return err
	}, `SELECT asked_at, upload_id, coalesce(variable, ''), salt, digest FROM upcall.erasures WHERE asked_at > $1 ORDER BY asked_at`, since)
	if err != nil {
		return nil, fmt.Errorf("look for erasures: %w", unavailable(err))
	}
	return erasures, nil
}

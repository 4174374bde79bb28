package rollup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/feed"
)

// maxPlace is how many bytes bucket and key may have together. PostgreSQL's indexes take entries of
// up to 2,704 bytes, and keys of OSS have up to 1,023.
const maxPlace = 2600

// errStage says that the generation is not what it was when the batch began.
var errStage = errors.New("the generation of roll-ups was replaced")

// A deadLetter is an event that could not be taken in as a whole.
type deadLetter struct {
	id      uuid.UUID
	at      time.Time
	problem string
}

// A batch is events that are counted in one transaction.
type batch struct {
	generation int16
	stage      string
	counted    string // cursor of the last event
	now        time.Time
	counts     counts
	objects    []*object // in the order in which their rows are locked
	dead       []deadLetter
	there      map[group]bool // types, without a source, that have a row already
	touches    bool           // an event may be of one of the days
	lost       columns        // uploads of superseded events, and when those were received
}

// sort sorts events into what changes.
func (b *batch) sort(events []told) {
	objects := make(map[place]*object)
	for _, e := range events {
		u, at := e.upload, e.place
		bucket := at.bucket
		if len(bucket) > maxName {
			bucket = ""
		}
		if !at.fits() {
			b.counts.of(bucket, u).add(u, 1)
			if at.bucket != "" && at.key != "" {
				b.dead = append(b.dead, deadLetter{u.id, u.at, fmt.Sprintf(
					"bucket and key have %d bytes, more than %d: the upload is counted, but in no table of objects",
					len(at.bucket)+len(at.key), maxPlace)})
			}
			continue
		}
		o := objects[at]
		if o == nil {
			o = &object{place: at}
			objects[at] = o
			b.objects = append(b.objects, o)
		}
		o.coming = append(o.coming, u)
	}
	slices.SortFunc(b.objects, func(a, c *object) int { return a.compare(c.place) })
}

// apply counts entries but those in not.
func (b *batch) apply(ctx context.Context, tx pgx.Tx, entries []feed.Entry, not map[key]bool) error {
	// If this commit is lost in a crash, the cursor is lost with it, and the events are counted again.
	changed, err := exec(ctx, tx, "upcall_rollup_counted", `UPDATE upcall.rollup_generations SET counted = $1
		WHERE generation = $2 AND stage = $3 RETURNING set_config('synchronous_commit', 'off', true)`, b.counted, b.generation, b.stage)
	if err == nil && changed == 0 {
		err = errStage
	}
	if err != nil {
		return fmt.Errorf("count events: %w", err)
	}
	if len(entries) > 0 {
		events, err := b.read(ctx, tx, entries, len(not) == 0)
		if err != nil {
			return err
		}
		b.sort(without(events, not))
	}
	if err := b.load(ctx, tx); err != nil {
		return fmt.Errorf("load objects: %w", err)
	}
	for _, o := range b.objects {
		o.take()
		bucket := o.bucket
		if len(bucket) > maxName {
			bucket = ""
		}
		b.counts.addAll(bucket, o.before, -1)
		b.counts.addAll(bucket, o.known, +1)
	}
	if err := b.writeObjects(ctx, tx); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	if err := b.writeVersions(ctx, tx); err != nil {
		return fmt.Errorf("write versions: %w", err)
	}
	if err := b.writeSuperseded(ctx, tx); err != nil {
		return fmt.Errorf("write superseded events: %w", err)
	}
	if err := b.writeCounts(ctx, tx); err != nil {
		return fmt.Errorf("write counts: %w", err)
	}
	if err := b.countOverwritten(ctx, tx); err != nil {
		return fmt.Errorf("count overwritten uploads: %w", err)
	}
	if b.touches || b.lost != nil {
		if err := b.markDays(ctx, tx, entries); err != nil {
			return fmt.Errorf("mark days: %w", err)
		}
	}
	return writeDead(ctx, tx, b.dead, b.now)
}

func writeDead(ctx context.Context, tx pgx.Tx, dead []deadLetter, now time.Time) error {
	for _, d := range dead {
		_, err := tx.Exec(ctx, `INSERT INTO upcall.rollup_dead_letters (event_id, received_at, problem, found_at)
			VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, d.id, d.at, d.problem, now)
		if err != nil {
			return fmt.Errorf("write dead letter: %w", err)
		}
	}
	return nil
}

// writeCounts adds to rollup_hourly.
func (b *batch) writeCounts(ctx context.Context, tx pgx.Tx) error {
	groups := b.counts.groups()
	if len(groups) == 0 {
		return nil
	}
	if err := b.foldTypes(ctx, tx, groups); err != nil {
		return err
	}
	groups = b.counts.groups()
	var c columns
	for _, g := range groups {
		n := b.counts[g]
		c.add(g.hour, g.bucket, g.mime, g.source, n.uploads, n.gib, n.rest, n.newObjects, n.overwrites)
	}
	_, err := exec(ctx, tx, "upcall_rollup_hours", `
		INSERT INTO upcall.rollup_hourly AS h (generation, hour, bucket, mime_type, source, uploads, bytes, new_objects, overwrites)
		SELECT $1, hour, bucket, mime_type, source, uploads, gib * 1073741824::numeric + rest, new_objects, overwrites
		FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
			$10::bigint[]) AS u (hour, bucket, mime_type, source, uploads, gib, rest, new_objects, overwrites)
		ON CONFLICT (generation, hour, bucket, mime_type, source) DO UPDATE SET uploads = h.uploads + excluded.uploads,
			bytes = h.bytes + excluded.bytes, new_objects = h.new_objects + excluded.new_objects,
			overwrites = h.overwrites + excluded.overwrites`, c.after(b.generation)...)
	return err
}

// foldTypes counts content types as others that come after the first maxTypes of their hour and
// bucket. A type that has a row has it for good, so what was counted is taken out where it is.
func (b *batch) foldTypes(ctx context.Context, tx pgx.Tx, groups []group) error {
	// The groups of a type differ by their source only, and follow each other or nearly.
	asked := make(map[group]bool)
	var c columns
	for _, g := range groups {
		if g.source = ""; g.mime != otherType && !asked[g] && !b.there[g] {
			asked[g] = true
			c.add(g.hour, g.bucket, g.mime)
		}
	}
	if len(c) == 0 {
		return nil
	}
	rows, err := query(ctx, tx, "upcall_rollup_types", `
		SELECT u.hour, u.bucket, u.mime_type, (SELECT count(*) FROM (
			SELECT DISTINCT mime_type FROM upcall.rollup_hourly h
			WHERE h.generation = $1 AND h.hour = u.hour AND h.bucket = u.bucket AND h.mime_type <> 'other') AS types)
		FROM unnest($2::timestamptz[], $3::text[], $4::text[]) AS u (hour, bucket, mime_type)
		WHERE NOT EXISTS (SELECT FROM upcall.rollup_hourly h
			WHERE h.generation = $1 AND h.hour = u.hour AND h.bucket = u.bucket AND h.mime_type = u.mime_type)`, c.after(b.generation)...)
	if err != nil {
		return err
	}
	added := make(map[group]int)   // by hour and bucket
	folded := make(map[group]bool) // by hour, bucket and type
	var g group
	var there int
	_, err = pgx.ForEachRow(rows, []any{&g.hour, &g.bucket, &g.mime, &there}, func() error {
		g.hour = g.hour.UTC()
		if of := (group{hour: g.hour, bucket: g.bucket}); there+added[of] < maxTypes {
			added[of]++
		} else {
			folded[g] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, g := range groups {
		into, n := g, b.counts[g]
		if g.source = ""; !folded[g] {
			continue
		}
		delete(b.counts, into)
		into.mime = otherType
		other := b.counts[into]
		if other == nil {
			other = new(count)
			b.counts[into] = other
		}
		other.uploads, other.gib, other.rest = other.uploads+n.uploads, other.gib+n.gib, other.rest+n.rest
		other.newObjects, other.overwrites = other.newObjects+n.newObjects, other.overwrites+n.overwrites
	}
	return nil
}

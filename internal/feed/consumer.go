package feed

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/eventstore"
)

// A Consumer is a row of upcall.feed_consumers.
type Consumer struct {
	Name      string
	Cursor    Cursor
	Holder    string    // of the lease; "" if there is none
	Until     time.Time // when the lease ends, by PostgreSQL's clock
	UpdatedAt time.Time // when the cursor was moved, by PostgreSQL's clock
}

// reads says what the consumer reads: hooks tell of findings, too.
func (c Consumer) reads() reading {
	if strings.HasPrefix(c.Name, "hook/") {
		return all
	}
	return recorded
}

// cursorColumns are those of a cursor in feed_consumers, in the order of [Cursor.values].
const cursorColumns = "system_identifier, timeline, recorded_xid, received_at, id"

// values returns the cursor as the parameters of a statement.
func (c Cursor) values() []any {
	var xid *uint64
	var at *time.Time
	if c.xid > 0 {
		xid = &c.xid
	} else {
		at = new(time.UnixMicro(c.at))
	}
	return []any{int64(c.system), int32(c.timeline), xid, at, c.id}
}

// cursorFields are what to scan cursorColumns into.
func (c *Cursor) fields() []any {
	return []any{&c.system, &c.timeline, orZero{&c.xid}, microseconds{&c.at}, &c.id}
}

// AddConsumer adds a consumer at a cursor of [Log.Now], [Log.Oldest] or [Log.Since]. The error
// wraps [ErrExists] if there is one with the name.
func AddConsumer(ctx context.Context, tx pgx.Tx, name string, at Cursor) error {
	tag, err := tx.Exec(ctx, "INSERT INTO upcall.feed_consumers (name, "+cursorColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, append([]any{name}, at.values()...)...)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("add consumer %s: %w", name, err)
	}
	return nil
}

// RemoveConsumer removes a consumer. A holder's next Commit fails. The error wraps
// [ErrNoConsumer] if there is none with the name.
func RemoveConsumer(ctx context.Context, tx pgx.Tx, name string) error {
	tag, err := tx.Exec(ctx, "DELETE FROM upcall.feed_consumers WHERE name = $1", name)
	return changed("remove", name, tag, err)
}

// MoveConsumer sets a consumer's cursor, to replay or to skip. A holder's next Commit fails, and
// its lease ends with it. The error wraps [ErrNoConsumer] if there is none with the name.
func MoveConsumer(ctx context.Context, tx pgx.Tx, name string, to Cursor) error {
	tag, err := tx.Exec(ctx, "UPDATE upcall.feed_consumers SET ("+cursorColumns+`, updated_at, lease_holder, lease_until) =
		($2, $3, $4, $5, $6, now(), NULL, NULL) WHERE name = $1`, append([]any{name}, to.values()...)...)
	return changed("move", name, tag, err)
}

func changed(verb, name string, tag interface{ RowsAffected() int64 }, err error) error {
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNoConsumer
	}
	if err != nil {
		return fmt.Errorf("%s consumer %s: %w", verb, name, err)
	}
	return nil
}

// ListConsumers returns all consumers by name.
func ListConsumers(ctx context.Context, pool *pgxpool.Pool) ([]Consumer, error) {
	var consumers []Consumer
	err := readConsumers(ctx, pool, "SELECT name, "+cursorColumns+`, coalesce(lease_holder, ''), lease_until, updated_at
		FROM upcall.feed_consumers ORDER BY name`, func(c Consumer) { consumers = append(consumers, c) })
	if err != nil {
		return nil, fmt.Errorf("list consumers: %w", err)
	}
	return consumers, nil
}

// readConsumers visits the consumers that a statement returns.
func readConsumers(ctx context.Context, pool *pgxpool.Pool, sql string, visit func(Consumer), args ...any) error {
	_, err := eventstore.Exec(ctx, pool, "", sql, func(rows pgx.Rows) error {
		for rows.Next() {
			var c Consumer
			var until pgtype.Timestamptz
			fields := append([]any{&c.Name}, c.Cursor.fields()...)
			if err := rows.Scan(append(fields, &c.Holder, &until, &c.UpdatedAt)...); err != nil {
				return err
			}
			c.Until = until.Time
			visit(c)
		}
		return rows.Err()
	}, args...)
	if err != nil {
		return eventstore.Unavailable(err)
	}
	return nil
}

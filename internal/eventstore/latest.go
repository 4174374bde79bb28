package eventstore

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/event"
)

// eventColumns are what scanEvent reads.
const eventColumns = `id, received_at, coalesce(bucket, ''), coalesce(object_key, ''), coalesce(etag, ''), size,
	coalesce(mime_type, ''), image_width, image_height, coalesce(image_format, ''), crc64::text,
	coalesce(content_md5, ''), coalesce(vpc_id, ''), client_ip, coalesce(request_id, ''),
	coalesce(operation, ''), upload_id, vars, source`

// Latest returns the events received last, the newest first, at most limit of them. A
// null column is the zero value of its field.
func Latest(ctx context.Context, pool *pgxpool.Pool, limit int) ([]event.Event, error) {
	rows, err := pool.Query(ctx, `
		SELECT `+eventColumns+`
		FROM upcall.upload_events
		ORDER BY received_at DESC, id DESC
		LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read latest events: %w", err)
	}
	events, err := pgx.CollectRows(rows, scanEvent)
	if err != nil {
		return nil, fmt.Errorf("read latest events: %w", err)
	}
	return events, nil
}

func scanEvent(row pgx.CollectableRow) (event.Event, error) {
	var e event.Event
	var crc64 *string
	var clientIP *netip.Addr
	c := &e.Callback
	err := row.Scan(&e.ID, &e.ReceivedAt, &c.Bucket, &c.Object, &c.ETag, &c.Size, &c.MimeType,
		&c.ImageWidth, &c.ImageHeight, &c.ImageFormat, &crc64, &c.ContentMD5, &c.VPCID, &clientIP,
		&c.RequestID, &c.Operation, &e.UploadID, &c.Vars, &e.Source)
	if err != nil {
		return event.Event{}, err
	}
	if clientIP != nil {
		c.ClientIP = *clientIP
	}
	if crc64 != nil {
		n, err := strconv.ParseUint(*crc64, 10, 64)
		if err != nil {
			return event.Event{}, fmt.Errorf("read crc64: %w", err)
		}
		c.CRC64 = &n
	}
	return e, nil
}

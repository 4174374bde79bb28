package event

import (
	"fmt"
	"slices"

	"upcall/internal/callbackspec"
)

// A Column is a column of upcall.upload_events, and a member of an event's JSON.
type Column struct {
	Name string
	// Field returns a pointer to the event's value: *uuid.UUID, *uuid.NullUUID, *time.Time,
	// *string, **int64, **int32, **uint64, *netip.Addr or *map[string]json.RawMessage. A zero
	// value is null, except in columns of the first and the last type.
	Field func(*Event) any
}

// Columns are all columns of an event, in the order of its JSON. Statements and codecs are made
// from them.
var Columns = []Column{
	{"id", func(e *Event) any { return &e.ID }},
	{"received_at", func(e *Event) any { return &e.ReceivedAt }},
	{"bucket", func(e *Event) any { return &e.Callback.Bucket }},
	{"object_key", func(e *Event) any { return &e.Callback.Object }},
	{"etag", func(e *Event) any { return &e.Callback.ETag }},
	{"size", func(e *Event) any { return &e.Callback.Size }},
	{"mime_type", func(e *Event) any { return &e.Callback.MimeType }},
	{"image_width", func(e *Event) any { return &e.Callback.ImageWidth }},
	{"image_height", func(e *Event) any { return &e.Callback.ImageHeight }},
	{"image_format", func(e *Event) any { return &e.Callback.ImageFormat }},
	{"crc64", func(e *Event) any { return &e.Callback.CRC64 }},
	{"content_md5", func(e *Event) any { return &e.Callback.ContentMD5 }},
	{"vpc_id", func(e *Event) any { return &e.Callback.VPCID }},
	{"client_ip", func(e *Event) any { return &e.Callback.ClientIP }},
	{"request_id", func(e *Event) any { return &e.Callback.RequestID }},
	{"operation", func(e *Event) any { return &e.Callback.Operation }},
	{"upload_id", func(e *Event) any { return &e.UploadID }},
	{"vars", func(e *Event) any { return &e.Callback.Vars }},
	{"source", func(e *Event) any { return (*string)(&e.Source) }},
}

// Members are what an event's JSON has: its columns, and supersedes, which is no column.
var Members = append(slices.Clone(Columns), Column{"supersedes", func(e *Event) any { return &e.Supersedes }})

// Member returns the column's name in JSON.
func (c Column) Member() string {
	if c.Name == "id" {
		return "event_id"
	}
	return c.Name
}

// CheckTexts returns an error that wraps ErrUnstorable if PostgreSQL cannot hold one of the
// event's texts.
func (e *Event) CheckTexts() error {
	for _, c := range Columns {
		if text, ok := c.Field(e).(*string); ok && !callbackspec.Storable(*text) {
			return fmt.Errorf("%w: %s is not UTF-8, or holds NUL", ErrUnstorable, c.Name)
		}
	}
	return nil
}

package confirm

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"upcall/internal/event"
	"upcall/internal/oss"
)

// differs returns in what an object is not what an event says. What the callback did not say is not
// compared.
func differs(e *event.Event, size *int64, etag string, crc64 *uint64) []string {
	c, parts := &e.Callback, []string{}
	if c.Size != nil && size != nil && *c.Size != *size {
		parts = append(parts, "size")
	}
	if c.ETag != "" && etag != "" && event.PlainETag(c.ETag) != event.PlainETag(etag) {
		parts = append(parts, "etag")
	}
	if c.CRC64 != nil && crc64 != nil && *c.CRC64 != *crc64 {
		parts = append(parts, "crc64")
	}
	return parts
}

// agrees reports whether a notification confirms an event: it says all that the event says, and the same.
func (n *notified) agrees(e *event.Event) bool {
	c := &e.Callback
	says := (c.Size == nil || n.size != nil) && (c.ETag == "" || n.etag != "") && (n.size != nil || n.etag != "")
	return says && len(differs(e, n.size, n.etag, n.crc64)) == 0
}

// A finding is what deliveries have as "found". All but Differs is null if there is no object.
type finding struct {
	Differs      []string   `json:"differs"`
	Size         *int64     `json:"size"`
	ETag         *string    `json:"etag"`
	CRC64        *string    `json:"crc64"` // as digits: it exceeds what numbers of JSON can be relied on for
	LastModified *time.Time `json:"last_modified"`
}

// found returns the finding about an object that was seen; nil if it is not there.
func found(head *oss.Head, differs []string) json.RawMessage {
	f := finding{Differs: []string{}}
	if head != nil {
		f = finding{Differs: differs, Size: &head.Size, ETag: &head.ETag, LastModified: &head.LastModified}
		if head.CRC64 != nil {
			digits := strconv.FormatUint(*head.CRC64, 10)
			f.CRC64 = &digits
		}
	}
	text, err := json.Marshal(f)
	if err != nil {
		panic(fmt.Sprintf("encode finding: %v", err)) // it has no values that JSON lacks
	}
	return text
}

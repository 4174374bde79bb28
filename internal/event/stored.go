package event

import (
	"strconv"
	"time"
)

// hintRange is how far the time in a request id may be from when the event was received.
const hintRange = 24 * time.Hour

// StoredAt returns about when OSS began to store the object. The first eight hexadecimal digits of its request ids
// are the second of the request: in all callbacks and notifications that we have seen since 2017, but no
// document says so. So it is a hint, for metrics: if it is not plausible, the time is that of receipt. For other
// sources than callbacks that is OSS's time anyway.
func (e *Event) StoredAt() time.Time {
	const digits, length = 8, 24
	if id := e.Callback.RequestID; len(id) == length && (e.Source == "" || e.Source == SourceCallback) {
		if seconds, err := strconv.ParseUint(id[:digits], 16, 32); err == nil {
			if at := time.Unix(int64(seconds), 0); at.Sub(e.ReceivedAt).Abs() <= hintRange {
				return at
			}
		}
	}
	return e.ReceivedAt
}

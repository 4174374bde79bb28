package event

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"time"

	"github.com/google/uuid"
)

// RecoveredID returns the identity of an upload that no callback told of: a digest, so that
// the same notification, or a second listing, makes no second event. The request id tells uploads
// to an object apart; without one, the ETag and the time of the upload do.
//
// Its first four bytes are zero, so that in the order of ids it is before those of callbacks, of which one in four
// billion is that low: see [FirstCallbackID].
func RecoveredID(source Source, bucket, key, requestID, etag string, at time.Time) uuid.UUID {
	texts := []string{string(source), bucket, key, requestID}
	if requestID == "" {
		texts = append(texts, PlainETag(etag), at.UTC().Format(timeLayout))
	}
	digest := sha256.New()
	var length [8]byte
	for _, text := range texts {
		binary.BigEndian.PutUint64(length[:], uint64(len(text)))
		digest.Write(length[:])
		digest.Write([]byte(text))
	}
	id := uuid.UUID(digest.Sum(nil)[:16])
	clear(id[:4])
	return id
}

// FirstCallbackID is above all that [RecoveredID] returns.
const FirstCallbackID = "00000001-0000-0000-0000-000000000000"

// ListedApart is by how much the time of an upload that a listing found, which is OSS's, and the time of what else
// tells of it may differ: clocks do, and OSS may try several addresses before one takes its callback.
// ListedApartSQL is the same for PostgreSQL.
const (
	ListedApart    = 2 * time.Minute
	ListedApartSQL = "interval '2 minutes'"
)

// PlainETag returns an ETag in capitals without quotes, as it is compared: a listing has
// quotes, a notification has none. PostgreSQL's upper(btrim(etag, '"') COLLATE "C") is the same.
func PlainETag(etag string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, strings.Trim(etag, `"`))
}

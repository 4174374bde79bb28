package feed

import (
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// These scan a nullable column, whose null is zero.
type (
	orZero       struct{ number *uint64 }
	orNil        struct{ id *uuid.UUID }
	microseconds struct{ since1970 *int64 }
)

// ScanUint64 is for xid8.
func (s orZero) ScanUint64(v pgtype.Uint64) error {
	*s.number = v.Uint64
	return nil
}

// ScanUUID is for uuid.
func (s orNil) ScanUUID(v pgtype.UUID) error {
	*s.id = v.Bytes
	return nil
}

// ScanTimestamptz is for timestamptz.
func (s microseconds) ScanTimestamptz(v pgtype.Timestamptz) error {
	*s.since1970 = 0
	if v.Valid {
		*s.since1970 = v.Time.UnixMicro()
	}
	return nil
}

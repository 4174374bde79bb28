package intake

import (
	"encoding/binary"
	"hash/maphash"
	"sync"

	"github.com/google/uuid"
)

// recentIDs is how many request IDs each of the two generations of memory holds.
const recentIDs = 1 << 16

// recent remembers the content of the latest callbacks by request ID, to notice an ID that
// is used for another content: OSS gives each upload its own. It may forget, and knows
// only the callbacks of this receiver. It is memory and not a query because every callback
// needs it.
type recent struct {
	seed maphash.Seed

	mu  sync.Mutex
	now map[uint64]uint64 // digests of request IDs and of their content
	old map[uint64]uint64 // the previous generation
}

func newRecent() *recent {
	return &recent{seed: maphash.MakeSeed(), now: make(map[uint64]uint64)}
}

// conflicts reports whether the request ID was last used for another event ID, and
// remembers id.
func (r *recent) conflicts(requestID string, id uuid.UUID) bool {
	if requestID == "" {
		return false
	}
	// A digest has a fixed size, however long the request ID is; the seed keeps senders
	// from choosing two IDs that collide.
	key, content := maphash.String(r.seed, requestID), binary.BigEndian.Uint64(id[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.now[key]
	if !known {
		before, known = r.old[key]
		if len(r.now) >= recentIDs {
			r.old, r.now = r.now, make(map[uint64]uint64)
		}
	}
	r.now[key] = content
	return known && before != content
}

package intake

import (
	"encoding/binary"
	"hash/maphash"
	"sync"

	"github.com/google/uuid"
)

// recentIDs is how many request ids a generation of memory holds; there are two.
const recentIDs = 1 << 16

// recent remembers what came under the latest request ids, so that one that comes again
// with another content is noticed: OSS gives each upload an id of its own. It may forget,
// and knows of this receiver only. It is memory and not a query because every callback
// asks it.
type recent struct {
	seed maphash.Seed

	mu  sync.Mutex
	now map[uint64]uint64 // digests of request ids, and of what came under them
	old map[uint64]uint64 // what now was, until it was full
}

func newRecent() *recent {
	return &recent{seed: maphash.MakeSeed(), now: make(map[uint64]uint64)}
}

// conflicts says whether the request id came before with another identity, and
// remembers the latest.
func (r *recent) conflicts(requestID string, id uuid.UUID) bool {
	if requestID == "" {
		return false
	}
	// Of fixed size, whatever someone takes for a request id; with a seed, so that
	// nobody can choose two that collide.
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

package rollup

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"upcall/internal/event"
)

// An upload is an event as far as counts and objects need it.
type upload struct {
	at        time.Time // PostgreSQL's microseconds, in UTC
	id        uuid.UUID
	mime      string // as rollup_hourly has it
	source    string
	size      pgtype.Int8
	requestID string // "" if there is none that can be indexed: those of OSS have 24 characters
	uploadID  uuid.NullUUID
	etag      string // in capitals without quotes; "" if it is not known
	stored    bool   // in rollup_versions
}

// compare orders the uploads to an object.
func (u upload) compare(other upload) int {
	return cmp.Or(u.at.Compare(other.at), bytes.Compare(u.id[:], other.id[:]))
}

// same reports whether two events to an object, if they are of different sources, tell of the same upload. A
// listing may have taken it for another upload that was issued for the object.
func (u upload) same(other upload) bool {
	const listed = string(event.SourceReconcile)
	return u.requestID != "" && u.requestID == other.requestID || u.etag != "" && u.etag == other.etag &&
		(u.uploadID.Valid && u.uploadID == other.uploadID ||
			(u.source == listed || other.source == listed) && u.at.Sub(other.at).Abs() <= event.ListedApart)
}

// rank is lower for what is preferred of sources that tell of the same upload.
func rank(source string) int {
	switch event.Source(source) {
	case event.SourceCallback:
		return 0
	case event.SourceNotification:
		return 1
	case event.SourceReconcile:
		return 2
	}
	return 3
}

// A place is the bucket and key of an object.
type place struct{ bucket, key string }

// fits reports whether there can be an object.
func (p place) fits() bool {
	return p.bucket != "" && p.key != "" && len(p.bucket)+len(p.key) <= maxPlace
}

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.bucket, other.bucket), cmp.Compare(p.key, other.key))
}

// An object is what a batch knows of an object.
type object struct {
	place
	number  int64 // 0 if it is new
	uploads int64 // all of them, also those that are not known
	sources int16 // a bit for each rank
	coming  []upload

	// known are uploads in their order. The first and the last are those of the object, because
	// as many at each end are known as the batch can take out.
	known, before []upload
	lost          []upload // those that do not count, because another is preferred
	lostBefore    []upload // those of earlier batches that what a listing tells may be the same as
}

// mixed reports whether one upload may have been told of by several sources.
func (o *object) mixed() bool {
	all := o.sources
	for _, u := range o.coming {
		all |= 1 << rank(u.source)
	}
	return all&(all-1) != 0
}

// knowAlso adds uploads of rollup_versions.
func (o *object) knowAlso(stored []upload) {
	o.known = append(o.known, stored...)
	slices.SortFunc(o.known, upload.compare)
	o.known = slices.CompactFunc(o.known, func(a, b upload) bool { return a.compare(b) == 0 })
}

// take adds what is coming.
func (o *object) take() {
	o.before = slices.Clone(o.known)
	for _, u := range o.coming {
		o.add(u)
	}
}

// add adds an upload, unless it is there already or another event that tells of it is preferred. Whether that one
// counts itself does not matter, so that the order in which they come does not.
func (o *object) add(u upload) {
	i, found := slices.BinarySearchFunc(o.known, u, upload.compare)
	if found {
		return
	}
	preferred := func(k upload) bool { return u.same(k) && rank(k.source) < rank(u.source) }
	if slices.ContainsFunc(o.known, preferred) || slices.ContainsFunc(o.lost, preferred) || slices.ContainsFunc(o.lostBefore, preferred) {
		o.lost = append(o.lost, u)
	} else {
		o.sources |= 1 << rank(u.source)
		o.uploads++
		o.known = slices.Insert(o.known, i, u)
	}
	for j := 0; j < len(o.known); {
		if k := o.known[j]; u.same(k) && rank(k.source) > rank(u.source) {
			o.lost = append(o.lost, k)
			o.known = slices.Delete(o.known, j, j+1)
			o.uploads--
			continue
		}
		j++
	}
}

func (o *object) first() upload  { return o.known[0] }
func (o *object) latest() upload { return o.known[len(o.known)-1] }

// changed reports whether the object's row is to be written, and whether its latest upload is
// another one.
func (o *object) changed() (any, latest bool) {
	if o.number == 0 {
		return true, true
	}
	latest = o.latest().compare(o.before[len(o.before)-1]) != 0
	return latest || !slices.EqualFunc(o.known, o.before, func(a, b upload) bool { return a.compare(b) == 0 }), latest
}

// versions returns the uploads that become rows of rollup_versions, and those that no longer are.
func (o *object) versions() (in, out []upload) {
	between := make(map[uuid.UUID]bool)
	for i, u := range o.known {
		if i == 0 || i == len(o.known)-1 {
			continue
		}
		between[u.id] = true
		if !u.stored {
			in = append(in, u)
		}
	}
	for _, u := range o.before {
		if u.stored && !between[u.id] {
			out = append(out, u)
		}
	}
	return in, out
}

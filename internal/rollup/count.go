package rollup

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// A group is the key of a row of rollup_hourly.
type group struct {
	hour         time.Time
	bucket       string
	mime, source string
}

func (g group) compare(other group) int {
	return cmp.Or(g.hour.Compare(other.hour), cmp.Compare(g.bucket, other.bucket), cmp.Compare(g.mime, other.mime),
		cmp.Compare(g.source, other.source))
}

// A count is what is added to a row of rollup_hourly.
type count struct {
	uploads, newObjects, overwrites int64
	// bytes are in two parts, because a sum of sizes may exceed 63 bits: a size is what a signed
	// body says, which a template of someone else may have made up.
	gib, rest int64
}

// counts are what a batch adds.
type counts map[group]*count

func (c counts) of(bucket string, u upload) *count {
	g := group{u.at.Truncate(time.Hour), bucket, u.mime, u.source}
	if c[g] == nil {
		c[g] = new(count)
	}
	return c[g]
}

// add adds an upload, or with -1 takes it out.
func (c *count) add(u upload, sign int64) {
	c.uploads += sign
	c.gib += sign * (u.size.Int64 >> 30)
	c.rest += sign * (u.size.Int64 & (1<<30 - 1))
}

// addAll counts the uploads of an object, or with -1 takes them out. Those that are not known
// are overwrites, and remain so.
func (c counts) addAll(bucket string, known []upload, sign int64) {
	for i, u := range known {
		n := c.of(bucket, u)
		n.add(u, sign)
		if i == 0 {
			n.newObjects += sign
		} else {
			n.overwrites += sign
		}
	}
}

// groups returns the groups that change, in the order in which they are locked.
func (c counts) groups() []group {
	for g, n := range c {
		if *n == (count{}) {
			delete(c, g)
		}
	}
	return slices.SortedFunc(maps.Keys(c), group.compare)
}

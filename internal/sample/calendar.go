package sample

import (
	"math"
	"sort"
	"time"
)

// A calendar spreads uploads over a year.
type calendar struct {
	begins time.Time
	// before is which share of the uploads comes before each hour, and 1 at the end.
	before []float64
}

// chinaTime is where the uploaders are.
var chinaTime = time.FixedZone("UTC+8", 8*60*60)

var (
	// hours are how busy the hours of a day are.
	hours = [24]float64{3, 2, 1, 1, 1, 2, 4, 7, 11, 14, 15, 14, 10, 12, 15, 15, 14, 12, 11, 12, 13, 12, 9, 5}
	// weekdays are how busy the days are, from Sunday on.
	weekdays = [7]float64{0.55, 1, 1.05, 1.05, 1, 0.95, 0.7}
)

// growth is how many times as many uploads there are at the end as at the beginning.
const growth = 2.5

func newCalendar(until time.Time) calendar {
	c := calendar{begins: until.AddDate(-1, 0, 0)}
	n := int(until.Sub(c.begins) / time.Hour)
	sum := 0.0
	for i := range n {
		c.before = append(c.before, sum)
		local := c.begins.Add(time.Duration(i) * time.Hour).In(chinaTime)
		sum += hours[local.Hour()] * weekdays[local.Weekday()] * math.Pow(growth, float64(i)/float64(n))
	}
	for i := range c.before {
		c.before[i] /= sum
	}
	c.before = append(c.before, 1)
	return c
}

// at returns the time before which that share of the uploads comes, from 0 to 1.
func (c calendar) at(share float64) time.Time {
	hour := max(0, min(sort.SearchFloat64s(c.before, share), len(c.before)-1)-1)
	part := (share - c.before[hour]) / (c.before[hour+1] - c.before[hour])
	return c.begins.Add(time.Duration((float64(hour) + part) * float64(time.Hour))).Truncate(time.Microsecond)
}

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"upcall/internal/fault"
)

// window is how much of the past the speed is measured over. A shorter one would jump with each
// retry, a longer one would still show the speed of before.
const window = 10 * time.Second

// A speed measures bytes per second over the last seconds.
type speed struct {
	sent    int64
	samples []sample // one each tenth of a second, oldest first
}

type sample struct {
	at   time.Time
	sent int64 // until then
}

func (s *speed) add(now time.Time, n int64) {
	if len(s.samples) == 0 {
		s.samples = append(s.samples, sample{now, 0})
	}
	s.sent += n
	if now.Sub(s.samples[len(s.samples)-1].at) < window/100 {
		return
	}
	s.samples = append(s.samples, sample{now, s.sent})
	old := 0
	for old < len(s.samples)-2 && now.Sub(s.samples[old+1].at) >= window {
		old++
	}
	s.samples = append(s.samples[:0], s.samples[old:]...)
}

// perSecond is 0 as long as it is not known.
func (s *speed) perSecond(now time.Time) float64 {
	if len(s.samples) < 2 {
		return 0
	}
	first := s.samples[0]
	return max(float64(s.sent-first.sent)/now.Sub(first.at).Seconds(), 0)
}

// amounts says how much is done and how long the rest takes, as in
// "34.0 of 140.0 MB, 8.1 MB/s, 13 s left".
func amounts(there, total int64, perSecond float64) string {
	unit, name := unitOf(total)
	text := fmt.Sprintf("%s of %s %s", amount(there, unit), amount(total, unit), name)
	if perSecond < 1 {
		return text
	}
	unit, name = unitOf(int64(perSecond))
	left := min(math.Ceil(float64(max(total-there, 0))/perSecond), float64(math.MaxInt64/time.Second))
	return fmt.Sprintf("%s, %s %s/s, %s left", text, amount(int64(perSecond), unit), name, timeLeft(time.Duration(left)*time.Second))
}

func unitOf(n int64) (unit int64, name string) {
	for _, u := range []string{"bytes", "kB", "MB", "GB"} {
		if unit = max(unit*1000, 1); n < unit*1000 {
			return unit, u
		}
	}
	return unit * 1000, "TB"
}

func amount(n, unit int64) string {
	if unit == 1 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatFloat(float64(n)/float64(unit), 'f', 1, 64)
}

// timeLeft names the two largest units that count.
func timeLeft(d time.Duration) string {
	minutes, seconds := int(d.Minutes()), int(d.Seconds())%60
	switch hours := minutes / 60; {
	case hours >= 100:
		return "days"
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes%60)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, seconds)
	}
	return fmt.Sprintf("%d s", seconds)
}

// parseRate reads bytes per second, as in 500k, 2M, 1.5MB/s or 10MiB. 0 means no limit.
func parseRate(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	bad := fault.At(flag, "%q is not a number of bytes a second; write 500k, 2M or 10MiB, say", s)
	number := strings.TrimSuffix(s, "/s")
	end := strings.TrimLeft(number, "0123456789.")
	number = number[:len(number)-len(end)]
	factor, known := map[string]float64{
		"": 1, "B": 1,
		"k": 1e3, "K": 1e3, "kB": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9,
		"Ki": 1 << 10, "KiB": 1 << 10, "Mi": 1 << 20, "MiB": 1 << 20, "Gi": 1 << 30, "GiB": 1 << 30,
	}[end]
	n, err := strconv.ParseFloat(number, 64)
	if !known || err != nil {
		return 0, bad
	}
	if n *= factor; n < 1 || n > 1<<50 { // 0 would mean no limit
		return 0, fault.At(flag, "%q is out of range; write 500k, 2M or 10MiB, say", s)
	}
	return int64(n), nil
}

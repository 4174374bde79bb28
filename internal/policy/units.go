package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"upcall/internal/fault"
)

// ParseDuration reads a positive Go duration such as 90s or 1h30m, or a number of days such
// as 7d.
func ParseDuration(s string) (time.Duration, error) {
	var d time.Duration
	days, ok := strings.CutSuffix(s, "d")
	if n, err := strconv.ParseUint(days, 10, 16); ok && err == nil {
		d = time.Duration(n) * 24 * time.Hour
	} else if d, err = time.ParseDuration(s); err != nil {
		return 0, fmt.Errorf("%s is not a duration; write 90s, 15m, 1h or 7d", fault.Quote(s))
	}
	if d <= 0 {
		return 0, fmt.Errorf("%s is not a positive duration; write 90s, 15m, 1h or 7d", fault.Quote(s))
	}
	return d, nil
}

var units = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"", 1}}

// parseSize reads a number of bytes, KiB, MiB, GiB or TiB. It does not read KB and MB,
// which mean different sizes to different people.
func parseSize(s string) (int64, error) {
	for _, unit := range units {
		digits, ok := strings.CutSuffix(s, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n == 0 || int64(n) > math.MaxInt64/unit.bytes {
			break
		}
		return int64(n) * unit.bytes, nil
	}
	return 0, fmt.Errorf("%s is not a size; write a number of bytes, or 500KiB, 20MiB or 5GiB", fault.Quote(s))
}

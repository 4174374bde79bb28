package receiver

import (
	"fmt"
	"strconv"
	"strings"

	"upcall/internal/eventstore"
)

// maxRetention is in days. Anything longer is a mistake.
const maxRetention = 36_500

// ParseRetention reads a number of days such as "400d". "" and "0s" are 0: events are never dropped.
func ParseRetention(s string) (days int, err error) {
	if s == "" || s == "0s" {
		return 0, nil
	}
	digits, ok := strings.CutSuffix(s, "d")
	days, err = strconv.Atoi(digits)
	switch {
	case err != nil || digits[0] < '0' || digits[0] > '9' || days == 0:
		return 0, fmt.Errorf("%q is not a number of days: write 400d, or leave it out to keep all events", s)
	case !ok:
		return 0, fmt.Errorf("%q has no unit: write %sd (minimum %dd)", s, s, eventstore.MinRetention)
	}
	if err := checkRetention(days); err != nil {
		return 0, err
	}
	return days, nil
}

func checkRetention(days int) error {
	if days != 0 && (days < eventstore.MinRetention || days > maxRetention) {
		return fmt.Errorf("a retention of %d days is not between %d, the longest that a callback can repeat, and %d",
			days, eventstore.MinRetention, maxRetention)
	}
	return nil
}

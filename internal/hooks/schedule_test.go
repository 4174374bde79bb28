package hooks

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSchedule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Schedule{
		"":             DefaultSchedule(),
		"0s":           {},
		"100ms,1s":     {100 * time.Millisecond, time.Second},
		" 5s , 2h30m ": {5 * time.Second, 150 * time.Minute},
	} {
		if got, err := ParseSchedule(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"5", "5s,", ",", "-1s", "5s,0s", "1us", "169h", "5s;1m", "five",
		strings.Repeat("1h,", maxSteps) + "1h"} {
		if _, err := ParseSchedule(text); !errors.Is(err, ErrSchedule) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestScheduleNext(t *testing.T) {
	t.Parallel()
	s := Schedule{5 * time.Second, 5 * time.Minute, 24 * time.Hour}
	for _, tt := range []struct {
		attempts   int
		random     float64
		retryAfter time.Duration
		want       time.Duration
		ok         bool
	}{
		{1, 0, 0, 4 * time.Second, true},
		{1, 0.5, 0, 5 * time.Second, true},
		{1, 0.999999, 0, 6 * time.Second, true},
		{1, 0.5, time.Second, 5 * time.Second, true}, // never earlier
		{1, 0.5, time.Minute, time.Minute, true},
		{1, 0.5, time.Hour, maxRetryAfter, true},
		{3, 0.5, 30 * time.Hour, 30 * time.Hour, true},
		{3, 0.5, 300 * time.Hour, 48 * time.Hour, true},
		{4, 0.5, time.Hour, 0, false},
		{0, 0.5, 0, 0, false},
	} {
		got, ok := s.next(tt.attempts, tt.random, tt.retryAfter)
		if ok != tt.ok || (got-tt.want).Abs() > 5*time.Millisecond {
			t.Errorf("%+v: %v, %v", tt, got, ok)
		}
	}
	if total := sum(DefaultSchedule()); total != 75*time.Hour+35*time.Minute+5*time.Second {
		t.Errorf("the default takes %v", total)
	}
}

func sum(s Schedule) (total time.Duration) {
	for _, step := range s {
		total += step
	}
	return total
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "120": 2 * time.Minute, "-5": 0, "1.5": 0, "99999999999999999999": 0, "soon": 0,
		"Fri, 27 Nov 2026 08:01:00 GMT": time.Minute, "Fri, 27 Nov 2026 07:00:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

package main

import (
	"testing"
	"time"
)

func TestInWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                              "no time",
		time.Second:                    "1 second",
		59*time.Minute + 59500*1000000: "1 hour",
		90 * time.Minute:               "1 hour 30 minutes",
		7 * 24 * time.Hour:             "7 days",
		49*time.Hour + 2*time.Second:   "2 days 1 hour 2 seconds",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

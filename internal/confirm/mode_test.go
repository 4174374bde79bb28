package confirm

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestParseMode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"": 0, "off": 0, "all": 1, "sample:1": 1, "sample:0.01": 0.01, "sample:.5": 0.5, "sample:0.000001": 0.000001,
	} {
		if m, err := ParseMode(text); err != nil || m.share != want || m.On() != (want > 0) {
			t.Errorf("%q: got %v, %v; want %v", text, m, err, want)
		}
	}
	for _, text := range []string{
		"on", "true", "ALL", " all", "sample", "sample:", "sample:0", "sample:0.0", "sample:-0.5", "sample:+0.5", "sample:1.01", "sample:2",
		"sample:NaN", "sample:Inf", "sample:1e-3", "sample:0x1p-2", "sample:0.5.5", "sample:0,5", "sample:1%", "sample:0_1", "sample: 0.5",
		"0.5", "sample:1/100", "off\n",
	} {
		if m, err := ParseMode(text); !errors.Is(err, ErrMode) || m.On() {
			t.Errorf("%q: got %v, %v; want ErrMode", text, m, err)
		}
	}
}

func FuzzParseMode(f *testing.F) {
	for _, text := range []string{"off", "all", "sample:0.01", "sample:1", "sample:1e9", "sample:.", "sample:00.1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMode(text)
		switch {
		case err != nil && (!errors.Is(err, ErrMode) || m.On()):
			t.Errorf("%q: %v, %v", text, m, err)
		case err == nil && m.On() && (m.share > 1 || text != "all" && !strings.HasPrefix(text, "sample:")):
			t.Errorf("%q is %v", text, m)
		}
	})
}

// TestSample: the share is right for ids of any kind, the same wherever it is asked for, and a larger
// sample has all events of a smaller one.
func TestSample(t *testing.T) {
	t.Parallel()
	const events = 100_000
	for name, id := range map[string]func(n int) uuid.UUID{
		"digests": func(int) uuid.UUID { return uuid.New() },
		"numbers": func(n int) uuid.UUID { return uuid.UUID{14: byte(n >> 8), 15: byte(n), 13: byte(n >> 16)} },
	} {
		counts := make(map[float64]int)
		for n := range events {
			one, before := id(n), false
			for _, share := range []float64{0.001, 0.01, 0.1, 0.5, 1} {
				in := Mode{share}.includes(one)
				if before && !in {
					t.Fatalf("%s: %v is in a smaller sample, but not in %v", name, one, share)
				}
				if before = in; in {
					counts[share]++
				}
			}
		}
		for share, n := range counts {
			if want := share * events; float64(n) < 0.8*want-30 || float64(n) > 1.2*want+30 {
				t.Errorf("%s: %d of %d events are in a sample of %v", name, n, events, share)
			}
		}
	}
	// As it was when this was written: receivers of two versions agree.
	var ids []int
	for n := range 1000 {
		if (Mode{0.005}).includes(uuid.UUID{14: byte(n >> 8), 15: byte(n)}) {
			ids = append(ids, n)
		}
	}
	if want := []int{183, 222, 701}; !slices.Equal(ids, want) {
		t.Errorf("%v are in the sample, not %v", ids, want)
	}
}

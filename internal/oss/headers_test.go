package oss

import "testing"

// TestSameNames checks that the names count, not only their number.
func TestSameNames(t *testing.T) {
	t.Parallel()
	headers := map[string]string{"content-type": "a", "x-oss-callback": "b"}
	for _, tt := range []struct {
		name   string
		signed map[string]string
		want   bool
	}{
		{"the same", map[string]string{"Content-Type": "a", "x-oss-callback": "b"}, true},
		{"one is missing", map[string]string{"Content-Type": "a"}, false},
		{"one more", map[string]string{"Content-Type": "a", "x-oss-callback": "b", "x-oss-meta-a": "c"}, false},
		{"another", map[string]string{"Content-Type": "a", "x-oss-meta-a": "b"}, false},
		{"none", nil, false},
	} {
		if got := sameNames(tt.signed, headers); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if !sameNames(nil, nil) {
		t.Error("without headers the names differ")
	}
}

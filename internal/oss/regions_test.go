package oss

import "testing"

func TestKnownRegion(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		region  string
		known   bool
		instead string
	}{
		{"cn-hangzhou", true, ""},
		{"me-central-1", true, ""},
		{"hangzhou", false, "cn-hangzhou"},
		{"cnhangzhou", false, "cn-hangzhou"},
		{"ap-southeast1", false, "ap-southeast-1"},
		{"moon-1", false, ""},
	} {
		if known, instead := KnownRegion(tt.region); known != tt.known || instead != tt.instead {
			t.Errorf("%s: %t, %q", tt.region, known, instead)
		}
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"upcall/internal/cli"
)

// TestConfirmSettings holds that confirmation needs nothing while it is off, and that else all mistakes
// are reported at once.
func TestConfirmSettings(t *testing.T) {
	t.Parallel()
	keys := cli.Env{"OSS_ACCESS_KEY_ID": "ak", "OSS_ACCESS_KEY_SECRET": "hunter2"}
	for _, tt := range []struct {
		name, mode string
		grace      time.Duration
		region     string
		env        cli.Env
		off        bool
		want       []string // parts of the mistakes
	}{
		{"off", "off", 5 * time.Minute, "", nil, true, nil},
		{"default", "", 5 * time.Minute, "", nil, true, nil},
		{"all", "all", 5 * time.Minute, "cn-hangzhou", keys, false, nil},
		{"without grace", "sample:0.01", 0, "cn-hangzhou", keys, false, nil},
		{"off with a wrong grace", "off", -time.Second, "", nil, true, []string{"UPCALL_CONFIRM_GRACE: -1s is not between 0s and 24h"}},
		{"no credentials", "all", 5 * time.Minute, "", nil, false, []string{"region", "OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"}},
		{"all wrong", "sample:7", 25 * time.Hour, "", nil, false, []string{"UPCALL_CONFIRM: ", "UPCALL_CONFIRM_GRACE: 25h0m0s", "region",
			"OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"}},
	} {
		cmd := serveCommand{confirmFlags: confirmFlags{tt.mode, tt.grace}, Listen: ":0", AdminListen: ":0", Token: "off"}
		cmd.Region = tt.region
		cfg, err := cmd.confirmFlags.config(&cmd.OSSFlags, tt.env)
		if (cfg == nil) != tt.off || cfg != nil && len(tt.want) == 0 && (!cfg.Mode.On() || (cfg.Grace < 0) != (tt.grace == 0)) {
			t.Errorf("%s: %+v", tt.name, cfg)
		}
		if (err == nil) != (len(tt.want) == 0) {
			t.Errorf("%s: %v", tt.name, err)
		}
		whole, all := cmd.config(tt.env) // there is no database, at least
		if (whole.Confirm == nil) != tt.off {
			t.Errorf("%s: the receiver gets %+v", tt.name, whole.Confirm)
		}
		for _, want := range tt.want {
			if !strings.Contains(all.Error(), want) {
				t.Errorf("%s: %q is not in %v", tt.name, want, all)
			}
		}
		if strings.Contains(all.Error(), "hunter2") || len(tt.want) == 0 && strings.Contains(all.Error(), "OSS") {
			t.Errorf("%s: %v", tt.name, all)
		}
	}
}

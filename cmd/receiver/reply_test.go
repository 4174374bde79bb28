package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upcall/internal/cli"
	"upcall/internal/webhook"
)

// TestReplySettings holds which settings turn the reply hook on, and that all mistakes are
// reported, also while it is off.
func TestReplySettings(t *testing.T) {
	t.Parallel()
	secret := webhook.NewSecret().Reveal()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	on := replyFlags{ReplyURL: "http://10.0.0.1/reply", ReplyTimeout: 1500 * time.Millisecond, ReplyBody: "member"}
	for _, tt := range []struct {
		name   string
		change func(*replyFlags)
		env    cli.Env
		off    bool
		want   []string // parts of the mistakes
	}{
		{"secret", func(*replyFlags) {}, cli.Env{"UPCALL_REPLY_SECRET": secret}, false, nil},
		{"secret in a file", func(*replyFlags) {}, cli.Env{"UPCALL_REPLY_SECRET_FILE": file}, false, nil},
		{"whole answer", func(f *replyFlags) { f.ReplyBody = "replace" }, cli.Env{"UPCALL_REPLY_SECRET": secret}, false, nil},
		{"no time limit of its own", func(f *replyFlags) { f.ReplyTimeout = 0 }, cli.Env{"UPCALL_REPLY_SECRET": secret}, false, nil},
		{"nothing set", func(f *replyFlags) { f.ReplyURL = "" }, nil, true, nil},
		{"off with a secret", func(f *replyFlags) { f.ReplyURL = "" }, cli.Env{"UPCALL_REPLY_SECRET": secret}, true, nil},
		{"off with a bad secret", func(f *replyFlags) { f.ReplyURL = "" }, cli.Env{"UPCALL_REPLY_SECRET": "hunter2"}, true,
			[]string{"UPCALL_REPLY_SECRET: the secret does not begin with whsec_"}},
		{"no secret", func(*replyFlags) {}, nil, false, []string{"UPCALL_REPLY_SECRET: it is missing"}},
		{"two secrets", func(*replyFlags) {}, cli.Env{"UPCALL_REPLY_SECRET": secret, "UPCALL_REPLY_SECRET_FILE": file}, false,
			[]string{"set one of them only"}},
		{"all wrong", func(f *replyFlags) { f.ReplyURL, f.ReplyTimeout, f.ReplyBody = "ftp://app", 4*time.Second, "whole" },
			cli.Env{"UPCALL_REPLY_SECRET": "hunter2"}, false, []string{"UPCALL_REPLY_URL: it is not a URL",
				"UPCALL_REPLY_SECRET: the secret does not begin", "UPCALL_REPLY_TIMEOUT: 4s is not between 0s and 3.8s",
				`UPCALL_REPLY_BODY: "whole" is neither`}},
	} {
		f := on
		tt.change(&f)
		cmd := serveCommand{replyFlags: f, Listen: ":0", AdminListen: ":0", Token: "off"}
		cfg, err := cmd.replyFlags.config(tt.env)
		if (cfg == nil) != tt.off || cfg != nil && cfg.Replace != (f.ReplyBody == "replace") {
			t.Errorf("%s: %+v", tt.name, cfg)
		}
		whole, all := cmd.config(tt.env) // which also checks what receiver.Config does
		if whole.Reply == nil != tt.off {
			t.Errorf("%s: the receiver gets %+v", tt.name, whole.Reply)
		}
		text := all.Error() // there is no database, at least
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not in %v", tt.name, want, all)
			}
		}
		if len(tt.want) == 0 && (err != nil || strings.Contains(text, "REPLY")) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %v; %v", tt.name, err, all)
		}
		if tt.name == "all wrong" && (!errors.Is(all, errReplyBody) || !errors.Is(all, webhook.ErrSecret) || !errors.Is(all, webhook.ErrURL)) {
			t.Errorf("%s: %v", tt.name, all)
		}
	}
}

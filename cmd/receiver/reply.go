package main

import (
	"errors"
	"strings"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/receiver"
	"upcall/internal/webhook"
)

// errReplyBody says that a text does not say where a reply goes.
var errReplyBody = errors.New("neither member nor replace")

// replyFlags are those of the reply hook.
type replyFlags struct {
	ReplyURL     string        `name:"reply-url" setting:"UPCALL_REPLY_URL" placeholder:"URL" help:"${reply_url}"`
	ReplySecret  string        `name:"reply-secret" placeholder:"SECRET" help:"${reply_secret}"`
	ReplyTimeout time.Duration `name:"reply-timeout" setting:"UPCALL_REPLY_TIMEOUT" default:"1500ms" help:"${reply_timeout}"`
	ReplyBody    string        `name:"reply-body" setting:"UPCALL_REPLY_BODY" default:"member" placeholder:"WHERE" help:"${reply_body}"`
}

// config returns the settings, nil if the reply hook is off. What its caller checks is not in
// the error.
func (f *replyFlags) config(env cli.Env) (*receiver.ReplyConfig, error) {
	cfg := receiver.ReplyConfig{URL: strings.TrimSpace(f.ReplyURL), Timeout: f.ReplyTimeout, Replace: f.ReplyBody == "replace"}
	var faults fault.List
	if !cfg.Replace && f.ReplyBody != "member" {
		faults.AddNew(errReplyBody, "UPCALL_REPLY_BODY", "write member or replace", "%s is neither", fault.Quote(f.ReplyBody))
	}
	text, err := cli.Secret(f.ReplySecret, env, "UPCALL_REPLY_SECRET")
	if err == nil && text != "" {
		cfg.Secret, err = webhook.ParseSecret(text)
		err = fault.In("UPCALL_REPLY_SECRET", err)
	}
	if faults.Add(err); err != nil {
		cfg.Secret = webhook.NewSecret() // keeps Check from reporting that there is none
	}
	if cfg.URL == "" {
		return nil, faults.Err()
	}
	return &cfg, faults.Err()
}

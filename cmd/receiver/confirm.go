package main

import (
	"time"

	"upcall/internal/cli"
	"upcall/internal/confirm"
	"upcall/internal/fault"
	"upcall/internal/receiver"
)

// confirmFlags are those of confirmation.
type confirmFlags struct {
	Confirm      string        `setting:"UPCALL_CONFIRM" default:"off" placeholder:"MODE" help:"${confirm}"`
	ConfirmGrace time.Duration `setting:"UPCALL_CONFIRM_GRACE" default:"5m" placeholder:"TIME" help:"${confirm_grace}"`
}

// config returns the settings, nil if confirmation is off: then nothing needs credentials. The error is of
// all mistakes.
func (f *confirmFlags) config(where *cli.OSSFlags, env cli.Env) (*receiver.ConfirmConfig, error) {
	mode, err := confirm.ParseMode(f.Confirm)
	faults := fault.List{}
	faults.Add(fault.In("UPCALL_CONFIRM", err))
	if f.ConfirmGrace < 0 || f.ConfirmGrace > 24*time.Hour {
		faults.AddNew(nil, "UPCALL_CONFIRM_GRACE", "", "%v is not between 0s and 24h", f.ConfirmGrace)
	}
	if err == nil && !mode.On() {
		return nil, faults.Err()
	}
	cfg := &receiver.ConfirmConfig{Mode: mode, Grace: f.ConfirmGrace}
	if cfg.Grace == 0 {
		cfg.Grace = -1 // not the default
	}
	var ossErr error
	cfg.OSS, ossErr = where.Config(env)
	faults.Add(ossErr)
	return cfg, faults.Err()
}

package main

import (
	"context"
	"errors"

	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/uploadtoken"
)

// A setup holds what a command needs to issue uploads.
type setup struct {
	oss    oss.Config
	hosts  callbackspec.Hosts // of callback URLs
	tokens *uploadtoken.Keyring
	ledger issue.Ledger
}

// setUp reads the settings that all commands that issue uploads share. The error joins all
// mistakes. The function closes the ledger.
func setUp(ctx context.Context, f *cli.OSSFlags, env cli.Env) (setup, func(), error) {
	cfg, ossErr := f.Config(env)
	tokens, tokensErr := cli.TokenKeys("", env)
	ledger, closeLedger, ledgerErr := openLedger(ctx, env)
	return setup{cfg, issue.CallbackHosts(cfg.Host()), tokens, ledger}, closeLedger, fault.Join(ossErr, tokensErr, ledgerErr)
}

func (s setup) issuer() (*issue.Issuer, error) {
	client, err := oss.New(s.oss)
	if err != nil {
		return nil, err
	}
	return issue.New(issue.Config{OSS: client, Tokens: s.tokens, Ledger: s.ledger})
}

// blame turns a mistake in a setting into a usage error. Some mistakes, such as expired
// credentials, are found only when something is signed.
func blame(err error) error {
	if _, ok := errors.AsType[fault.Fault](err); ok {
		return cli.Usage(err)
	}
	return err
}

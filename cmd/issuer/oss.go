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

// ossFlags say how to reach OSS.
type ossFlags struct {
	Region     string `placeholder:"REGION" setting:"OSS_REGION" help:"The bucket's region, for example cn-hangzhou. Required."`
	Endpoint   string `placeholder:"HOST" setting:"OSS_ENDPOINT" help:"Host or URL of OSS. By default it follows from the region."`
	Internal   bool   `setting:"UPCALL_INTERNAL" help:"Use the region's internal endpoint, reachable inside Alibaba Cloud."`
	Accelerate bool   `setting:"UPCALL_ACCELERATE" help:"Use the transfer acceleration endpoint."`
	CName      bool   `name:"cname" setting:"UPCALL_CNAME" help:"The endpoint is a custom domain of the bucket."`
	PathStyle  bool   `setting:"UPCALL_PATH_STYLE" help:"${path_style}"`

	credentialFlags
}

// ossConfig reads region, endpoint and credentials. The error joins all mistakes.
func (f *ossFlags) ossConfig(env cli.Env) (oss.Config, error) {
	cfg := oss.Config{
		Region: f.Region, Endpoint: f.Endpoint, Internal: f.Internal, Accelerate: f.Accelerate, CName: f.CName, PathStyle: f.PathStyle,
	}
	err := f.fillIn(&cfg, env)
	return cfg, fault.Join(err, cfg.Check())
}

// A setup holds what a command needs to issue uploads.
type setup struct {
	oss    oss.Config
	hosts  callbackspec.Hosts // of callback URLs
	tokens *uploadtoken.Keyring
	ledger issue.Ledger
}

// setUp reads the settings that all commands that issue uploads share. The error joins all
// mistakes. The function closes the ledger.
func (f *ossFlags) setUp(ctx context.Context, env cli.Env) (setup, func(), error) {
	cfg, ossErr := f.ossConfig(env)
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

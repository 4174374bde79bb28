package main

import (
	"errors"
	"strings"

	"upcall/internal/oss"
	"upcall/internal/setting"
	"upcall/internal/uploadtoken"
)

// ossFlags are the way to OSS.
type ossFlags struct {
	Region     string `group:"oss" placeholder:"REGION" setting:"OSS_REGION" help:"The bucket's region, as in cn-hangzhou. Required."`
	Endpoint   string `group:"oss" placeholder:"HOST" setting:"OSS_ENDPOINT" help:"Host or URL of OSS. By default it follows from the region."`
	Internal   bool   `group:"oss" setting:"UPCALL_INTERNAL" help:"Use the region's endpoint inside Alibaba Cloud."`
	Accelerate bool   `group:"oss" setting:"UPCALL_ACCELERATE" help:"Use the transfer-acceleration endpoint."`
	CName      bool   `group:"oss" name:"cname" setting:"UPCALL_CNAME" help:"The endpoint is a custom domain of the bucket."`
	PathStyle  bool   `group:"oss" setting:"UPCALL_PATH_STYLE" help:"Put the bucket into the path, for emulators. Implied where the endpoint is an IP address."`

	credentialFlags
}

// presignConfig reads region, endpoint and credentials. The error is about what could
// not be read; what was read is still to be checked.
func (f *ossFlags) presignConfig(env environment) (oss.Config, error) {
	cfg := oss.Config{Region: f.Region, Endpoint: f.Endpoint, Internal: f.Internal, Accelerate: f.Accelerate, CName: f.CName, PathStyle: f.PathStyle}
	err := f.fillIn(&cfg, env)
	return cfg, err
}

// tokenKeys returns nil where no keys are set.
func tokenKeys(env environment) (*uploadtoken.Keyring, error) {
	keys, err := setting.Secret(env, "UPCALL_TOKEN_KEYS")
	if err != nil || keys == "" {
		return nil, err
	}
	ring, err := uploadtoken.ParseKeys(keys)
	if err != nil {
		return nil, prefixEach("UPCALL_TOKEN_KEYS: ", err)
	}
	return ring, nil
}

// prefixEach says of each joined error where it came from.
func prefixEach(prefix string, err error) error {
	var errs []error
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, errors.New(prefix+strings.TrimRight(line, "\n")))
	}
	return errors.Join(errs...)
}

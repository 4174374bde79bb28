package main

import (
	"upcall/internal/cli"
	"upcall/internal/oss"
)

// ossFlags are the way to OSS.
type ossFlags struct {
	Region     string `placeholder:"REGION" setting:"OSS_REGION" help:"The bucket's region, for example cn-hangzhou. Required."`
	Endpoint   string `placeholder:"HOST" setting:"OSS_ENDPOINT" help:"Host or URL of OSS. By default it follows from the region."`
	Internal   bool   `setting:"UPCALL_INTERNAL" help:"Use the region's internal endpoint, reachable inside Alibaba Cloud."`
	Accelerate bool   `setting:"UPCALL_ACCELERATE" help:"Use the transfer acceleration endpoint."`
	CName      bool   `name:"cname" setting:"UPCALL_CNAME" help:"The endpoint is a custom domain of the bucket."`
	PathStyle  bool   `setting:"UPCALL_PATH_STYLE" help:"${path_style}"`

	credentialFlags
}

// ossConfig reads region, endpoint and credentials. The error is about what could
// not be read; what was read is still to be checked.
func (f *ossFlags) ossConfig(env cli.Env) (oss.Config, error) {
	cfg := oss.Config{
		Region: f.Region, Endpoint: f.Endpoint, Internal: f.Internal, Accelerate: f.Accelerate, CName: f.CName, PathStyle: f.PathStyle,
	}
	err := f.fillIn(&cfg, env)
	return cfg, err
}

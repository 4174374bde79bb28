package cli

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"upcall/internal/fault"
	"upcall/internal/oss"
)

// OSSFlags say how to reach OSS.
type OSSFlags struct {
	Region     string `placeholder:"REGION" setting:"OSS_REGION" help:"The bucket's region, for example cn-hangzhou. Required."`
	Endpoint   string `placeholder:"HOST" setting:"OSS_ENDPOINT" help:"Host or URL of OSS. By default it follows from the region."`
	Internal   bool   `setting:"UPCALL_INTERNAL" help:"Use the region's internal endpoint, reachable inside Alibaba Cloud."`
	Accelerate bool   `setting:"UPCALL_ACCELERATE" help:"Use the transfer acceleration endpoint."`
	CName      bool   `name:"cname" setting:"UPCALL_CNAME" help:"The endpoint is a custom domain of the bucket."`
	PathStyle  bool   `setting:"UPCALL_PATH_STYLE" help:"${path_style}"`

	CredentialFlags
}

// OSSHelp returns the longer help texts of these flags, for a program's Vars.
func OSSHelp() kong.Vars {
	return kong.Vars{
		"credentials_file": "File with the profiles. Without --profile its current one is used. By default ~/.aliyun/config.json.",
		"credentials_process": "Use the credentials that this shell command prints: " +
			"JSON with AccessKeyId, AccessKeySecret, SecurityToken and Expiration.",
		"ecs_role":       "Use the RAM role of this ECS instance; auto finds out its name.",
		"path_style":     "Put the bucket into the path, for emulators. Implied if the endpoint is an IP address.",
		"profile":        "Use the credentials of this profile of the aliyun command line.",
		"sts_expiration": "When the session token ends, in RFC 3339, if the credentials do not say. No URL outlives it.",
	}
}

// Config reads region, endpoint and credentials. The error joins all mistakes.
func (f *OSSFlags) Config(env Env) (oss.Config, error) {
	cfg := oss.Config{
		Region: f.Region, Endpoint: f.Endpoint, Internal: f.Internal, Accelerate: f.Accelerate, CName: f.CName, PathStyle: f.PathStyle,
	}
	err := f.fillIn(&cfg, env)
	return cfg, fault.Join(err, cfg.Check())
}

// anyRole means the role that the metadata service names.
const anyRole = "auto"

// CredentialFlags say where the credentials come from instead of the environment.
type CredentialFlags struct {
	Profile            string `placeholder:"NAME" setting:"UPCALL_PROFILE" help:"${profile}"`
	CredentialsFile    string `placeholder:"FILE" setting:"UPCALL_CREDENTIALS_FILE" help:"${credentials_file}"`
	ECSRole            string `name:"ecs-role" placeholder:"ROLE" setting:"UPCALL_ECS_ROLE" help:"${ecs_role}"`
	CredentialsProcess string `placeholder:"COMMAND" setting:"UPCALL_CREDENTIALS_PROCESS" help:"${credentials_process}"`
	STSExpiration      string `name:"sts-expiration" placeholder:"TIME" setting:"UPCALL_STS_EXPIRATION" help:"${sts_expiration}"`
}

// fillIn adds the credentials to cfg. The error is about what could not be read; the rest
// is still to be checked.
func (f *CredentialFlags) fillIn(cfg *oss.Config, env Env) error {
	profile := f.Profile != "" || f.CredentialsFile != ""
	var err error
	switch {
	case profile && f.ECSRole != "", profile && f.CredentialsProcess != "", f.ECSRole != "" && f.CredentialsProcess != "":
		err = fault.At("--profile, --ecs-role, --credentials-process", "more than one is given; choose one source of credentials")
	case f.ECSRole == anyRole:
		cfg.Source = oss.ECSRole("")
	case f.ECSRole != "":
		cfg.Source = oss.ECSRole(f.ECSRole)
	case f.CredentialsProcess != "":
		cfg.Source = oss.Process(f.CredentialsProcess)
	case profile:
		err = f.useProfile(cfg, env)
		cfg.Reload = f.reload(func(cfg *oss.Config) error { return f.useProfile(cfg, env) })
	default:
		cfg.Reload = f.reload(func(cfg *oss.Config) error { return fromEnvironment(cfg, env) }) // secrets may be in files
		return fault.Join(fromEnvironment(cfg, env), f.setExpiration(cfg))
	}
	if err != nil {
		cfg.Source = noCredentials
	}
	return fault.Join(err, f.setExpiration(cfg))
}

// reload returns a function that reads credentials again.
func (f *CredentialFlags) reload(read func(*oss.Config) error) func() (oss.Config, error) {
	return func() (oss.Config, error) {
		var cfg oss.Config
		err := read(&cfg)
		return cfg, fault.Join(err, f.setExpiration(&cfg))
	}
}

// noCredentials stands for credentials whose mistake is reported already, so that they are
// not reported as missing too.
func noCredentials(context.Context, bool) (oss.Credentials, error) {
	return oss.Credentials{}, errors.New("no credentials")
}

func (f *CredentialFlags) useProfile(cfg *oss.Config, env Env) error {
	path := f.CredentialsFile
	if path == "" {
		if env["HOME"] == "" {
			return fault.At("--profile", "HOME is not set, so the file of profiles cannot be found; give --credentials-file")
		}
		path = filepath.Join(env["HOME"], ".aliyun", "config.json")
	}
	return cfg.UseProfile(path, f.Profile)
}

func fromEnvironment(cfg *oss.Config, env Env) error {
	var faults fault.List
	for _, secret := range []struct {
		name string
		to   *string
	}{
		{"OSS_ACCESS_KEY_ID", &cfg.AccessKeyID},
		{"OSS_ACCESS_KEY_SECRET", &cfg.AccessKeySecret},
		{"OSS_SESSION_TOKEN", &cfg.SessionToken},
	} {
		value, err := Secret("", env, secret.name)
		if err != nil {
			value = "unreadable" // so that it is not reported as missing too
		}
		*secret.to = value
		faults.Add(err)
	}
	return faults.Err()
}

// setExpiration uses the flag or the credentials' own expiry, whichever is earlier.
func (f *CredentialFlags) setExpiration(cfg *oss.Config) error {
	if f.STSExpiration == "" {
		return nil
	}
	end, err := time.Parse(time.RFC3339, f.STSExpiration)
	switch {
	case err != nil:
		return fault.At("--sts-expiration", "%q is not a time in RFC 3339; write 2026-11-22T18:00:00Z, say", f.STSExpiration)
	case f.ECSRole != "" || f.CredentialsProcess != "":
		return fault.At("--sts-expiration", "credentials of a role or a command hold their own expiry; leave it out")
	case cfg.Source == nil && (cfg.SessionExpires.IsZero() || end.Before(cfg.SessionExpires)):
		cfg.SessionExpires = end
	}
	return nil
}

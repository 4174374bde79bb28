package oss

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"upcall/internal/fault"
)

// maxProfiles limits the size of a file of profiles, in bytes.
const maxProfiles = 1 << 20

// ErrProfile means that a file of profiles cannot be used or lacks the profile.
var ErrProfile = errors.New("profile of credentials")

// A profile holds the credentials of a profile in the aliyun command line's
// ~/.aliyun/config.json.
type profile struct {
	Name            string `json:"name"`
	Mode            string `json:"mode"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"`
	STSToken        string `json:"sts_token"`
	STSExpiration   int64  `json:"sts_expiration"` // seconds since 1970; 0 if that is not known
	RAMRoleName     string `json:"ram_role_name"`
}

// UseProfile uses the credentials of a profile in a file of the aliyun command line. An
// empty name means the file's current profile. The error wraps ErrProfile and never holds
// a secret.
func (c *Config) UseProfile(path, name string) error {
	p, err := readProfile(path, name)
	if err != nil {
		return fault.New(ErrProfile, "profile", "see `aliyun configure list`, or give --credentials-file", "%s", err)
	}
	bad := func(fix, problem string) error {
		return fault.New(ErrProfile, "profile "+fault.Name(p.Name), fix, "%s", problem)
	}
	switch p.Mode {
	case "AK", "":
		p.STSToken, p.STSExpiration = "", 0
	case "StsToken", "CloudSSO", "OAuth":
		if p.STSToken == "" {
			return bad("sign in again with the aliyun command line", "has no session token at the moment")
		}
	case "EcsRamRole":
		c.Source = ECSRole(p.RAMRoleName)
		return nil
	default:
		// The keys in such a profile, if any, are not the ones to sign with.
		return bad("use a profile of the mode AK, StsToken, CloudSSO, OAuth or EcsRamRole, or --credentials-process",
			fmt.Sprintf("has the mode %s, which is not known here", fault.Name(p.Mode)))
	}
	c.AccessKeyID, c.AccessKeySecret, c.SessionToken = p.AccessKeyID, p.AccessKeySecret, p.STSToken
	if p.STSExpiration > 0 {
		c.SessionExpires = time.Unix(p.STSExpiration, 0)
	}
	return c.static().check(func(string) string { return "the profile " + fault.Name(p.Name) })
}

func readProfile(path, name string) (profile, error) {
	file, err := os.Open(path)
	if err != nil {
		return profile{}, unreadable(path, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxProfiles+1))
	if err != nil {
		return profile{}, unreadable(path, err)
	}
	var all struct {
		Current  string    `json:"current"`
		Profiles []profile `json:"profiles"`
	}
	// The text of a JSON error may hold some of the file.
	if len(text) > maxProfiles || json.Unmarshal(text, &all) != nil {
		return profile{}, fmt.Errorf("%q is not a file of profiles of the aliyun command line", path)
	}
	if name == "" {
		name = all.Current
	}
	i := slices.IndexFunc(all.Profiles, func(p profile) bool { return p.Name == name })
	if i < 0 {
		return profile{}, fmt.Errorf("there is no profile %q in %q", name, path)
	}
	return all.Profiles[i], nil
}

func unreadable(path string, err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err
	}
	return fmt.Errorf("the file %q cannot be read: %w", path, err)
}

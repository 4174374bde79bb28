package oss

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// Config says which account signs, and for which endpoint.
type Config struct {
	// Region is the bucket's region without the prefix oss-, as in cn-hangzhou. It is
	// part of the signature and has no default.
	Region string

	// Endpoint is a host, host:port or URL (https unless it says http). By default it
	// follows from the region.
	Endpoint string

	// Internal uses the region's endpoint inside Alibaba Cloud's network. Not together
	// with Endpoint. Default false.
	Internal bool

	// Accelerate uses the transfer-acceleration endpoint. Not together with Endpoint or
	// Internal. Default false.
	Accelerate bool

	// CName says that Endpoint is a custom domain of the bucket, so that the bucket's
	// name is not put before it. Default false.
	CName bool

	// PathStyle puts the bucket into the path. OSS itself rejects that; an emulator
	// accepts it. It is implied if Endpoint is an IP address. Default false.
	PathStyle bool

	// AccessKeyID and AccessKeySecret are required; SessionToken belongs to temporary
	// (STS) credentials and may be "".
	AccessKeyID, AccessKeySecret, SessionToken string

	// SessionExpires is when temporary credentials end, if that is known.
	SessionExpires time.Time

	// Reload reads the fields above again, once temporary credentials have expired: someone may
	// have written new ones where they came from. Default none.
	Reload func() (Config, error)

	// Source provides the credentials instead of the fields above. Default none.
	Source Source
}

const ossDomain = ".aliyuncs.com"

// Check returns all mistakes, joined.
func (c Config) Check() error {
	return fault.Join(c.checkRegion(), c.checkEndpoint(), c.checkStyle(), c.checkCredentials())
}

// Host is the endpoint's host name without its port, or "" if there is no readable
// endpoint.
func (c Config) Host() string {
	u, err := parseEndpoint(c.Endpoint)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

func (c Config) checkRegion() error {
	bare := strings.TrimSuffix(strings.ToLower(c.Region), ossDomain)
	bare = strings.TrimSuffix(strings.TrimPrefix(bare, "oss-"), "-internal")
	switch {
	case c.Region == "" && regionOf(c.Host()) != "":
		return fault.New(ErrRegion, "region", "give "+regionOf(c.Host()),
			"is empty, and the signature needs it though the endpoint names it")
	case c.Region == "":
		return fault.New(ErrRegion, "region", "give the bucket's region, as in cn-hangzhou", "is empty, and the signature needs it")
	case bare == "" || !ossrule.IsName(bare) || strings.Trim(bare, "-") != bare:
		return fault.New(ErrRegion, "region", "use lower-case letters, digits and hyphens, as in cn-hangzhou",
			"%q is not a region", c.Region)
	case bare != c.Region:
		return fault.New(ErrRegion, "region", "give "+bare, "%q is not spelt as the signature needs it", c.Region)
	}
	return nil
}

// regionOf returns the region in the name of one of OSS's own endpoints, or "".
func regionOf(host string) string {
	name, ok := strings.CutSuffix(host, ossDomain)
	if !ok {
		return ""
	}
	if region, ok := strings.CutSuffix(name, ".oss"); ok { // dual stack
		return region[strings.LastIndexByte(region, '.')+1:]
	}
	region, ok := strings.CutPrefix(name[strings.LastIndexByte(name, '.')+1:], "oss-")
	if !ok || region == "accelerate" || region == "accelerate-overseas" {
		return ""
	}
	return strings.TrimSuffix(region, "-internal")
}

func (c Config) checkEndpoint() error {
	if c.Endpoint == "" {
		return nil
	}
	bad := func(fix, problem string, args ...any) error {
		return fault.New(ErrEndpoint, "endpoint", fix, fmt.Sprintf("%q ", c.Endpoint)+problem, args...)
	}
	if strings.Contains(c.Endpoint, "@") { // first, so that no other error shows the password
		return fault.New(ErrEndpoint, "endpoint", "leave them out: requests are signed", "holds a user name or password")
	}
	if strings.ContainsFunc(c.Endpoint, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return bad("give a host such as oss-cn-hangzhou.aliyuncs.com", "holds a character that no host has")
	}
	u, err := parseEndpoint(c.Endpoint)
	if err != nil {
		return bad("give a host such as oss-cn-hangzhou.aliyuncs.com", "cannot be parsed")
	}
	port, portErr := strconv.ParseUint(u.Port(), 10, 16)
	switch host := c.Host(); {
	case u.Scheme != "http" && u.Scheme != "https":
		return bad("use http or https", "has the scheme %s", u.Scheme)
	case host == "":
		return bad("give a host such as oss-cn-hangzhou.aliyuncs.com", "has no host")
	case strings.HasSuffix(u.Host, ":"), u.Port() != "" && (portErr != nil || port == 0):
		return bad("use 1 to 65535", "has an invalid port")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "", strings.ContainsAny(c.Endpoint, "?#"):
		return bad("give the host alone: bucket and key have their own settings", "has a path or a query")
	case !c.CName && strings.HasSuffix(host, ossDomain) &&
		strings.Contains(strings.TrimSuffix(strings.TrimSuffix(host, ossDomain), ".oss"), "."):
		return bad("leave the bucket out: it is added automatically", "holds a bucket")
	case regionOf(host) != "" && regionOf(host) != c.Region && c.checkRegion() == nil:
		return bad("change one of them", "is in the region %s, but the region is %s", regionOf(host), c.Region)
	}
	return nil
}

// checkStyle reports settings that exclude each other. The SDK would silently prefer one.
func (c Config) checkStyle() error {
	host := c.Host()
	_, notAddress := netip.ParseAddr(host)
	var faults fault.List
	exclude := func(bad bool, field, fix, problem string) {
		if bad {
			faults.AddNew(ErrEndpoint, field, fix, "%s", problem)
		}
	}
	exclude(c.Internal && c.Accelerate, "internal", "choose one", "there is no internal acceleration endpoint")
	exclude(c.Internal && c.Endpoint != "", "internal", "leave one out", "chooses an endpoint, and one is given")
	exclude(c.Accelerate && c.Endpoint != "", "accelerate", "leave one out", "chooses an endpoint, and one is given")
	exclude(c.CName && c.Endpoint == "", "cname", "give the custom domain as the endpoint", "needs an endpoint")
	exclude(c.CName && host != "" && notAddress == nil, "cname", "leave it out or give a domain",
		"the endpoint is an address, not a domain")
	exclude(c.CName && c.PathStyle, "cname", "leave path-style out", "a custom domain has no bucket in its path")
	exclude(c.PathStyle && !c.CName && (c.Endpoint == "" || strings.HasSuffix(host, ossDomain)), "path-style",
		"leave it out, or give the endpoint of an emulator", "is rejected by OSS")
	return faults.Err()
}

func (c Config) checkCredentials() error {
	if c.Source != nil {
		return nil // checked when the source provides them
	}
	var expires error
	if !c.SessionExpires.IsZero() && c.SessionToken == "" {
		expires = fault.New(ErrCredentials, "session expiry", "set OSS_SESSION_TOKEN, or leave the expiry out",
			"is given, but there is no session token: permanent credentials do not end")
	}
	return fault.Join(c.static().check(variable), expires)
}

// static returns the credentials in the fields.
func (c Config) static() Credentials {
	return Credentials{
		AccessKeyID: c.AccessKeyID, AccessKeySecret: c.AccessKeySecret, SessionToken: c.SessionToken, Expires: c.SessionExpires,
	}
}

// source returns where the credentials come from.
func (c Config) source() Source {
	if c.Source == nil {
		return c.reloading()
	}
	return func(ctx context.Context, fresh bool) (Credentials, error) {
		got, err := c.Source(ctx, fresh)
		if err != nil {
			return Credentials{}, err
		}
		return got, got.check(func(string) string { return "the source of the credentials" })
	}
}

// reloadEvery limits how often expired credentials, or ones that may have expired, are read.
const reloadEvery = time.Second

// reloading provides the credentials in the fields, until they expire or fresh ones are asked
// for, and others are there.
func (c Config) reloading() Source {
	var mu sync.Mutex
	current, readAt := c.static(), time.Time{}
	return func(_ context.Context, fresh bool) (Credentials, error) {
		mu.Lock()
		defer mu.Unlock()
		ended := current.SessionToken != "" && time.Until(current.Expires) < ossrule.MinExpiry // zero: perhaps
		if c.Reload == nil || !fresh && (!ended || time.Since(readAt) < reloadEvery) {
			return current, nil
		}
		readAt = time.Now()
		if read, err := c.Reload(); err == nil && read.static().check(variable) == nil {
			current = read.static()
		}
		return current, nil // if they have expired, signing fails and says so
	}
}

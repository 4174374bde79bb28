// Package doctor says why a captured callback does not verify: what was changed between
// OSS and the receiver, and what to set or fix. It is for the receiver's program.
//
// An RSA signature holds the digest of what was signed. So one public operation tells
// the MD5 of the true string to sign, and each guess at what happened on the way costs
// one MD5. [Doctor.Examine] undoes, within bounds, what proxies, frameworks and editors
// are known to do, one change first and then several, until the digest fits. That proves
// the guess; package verify then judges the repaired request as it judges any other.
package doctor

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/uploadtoken"
	"upcall/internal/verify"
)

// Config is what the receiver is set to, as far as it is known, and what was captured
// besides.
type Config struct {
	// TrustKeyURLs are further public keys that the receiver trusts, see verify.Config.
	TrustKeyURLs []string
	// Key is the PEM file of a further public key, in place of what the first of
	// TrustKeyURLs serves or, without one, the URL that the request names. Default none.
	Key []byte
	// PublicURL is the receiver's: the callback URL as OSS sees it. Default none.
	PublicURL string
	// CallbackURL is the whole callback URL that was given to OSS, with its query; the
	// search tries its path and query. Default unknown.
	CallbackURL string
	// CallbackPath is the path that the receiver answers at. Default unknown.
	CallbackPath string
	// Buckets that the receiver takes callbacks for. Default any.
	Buckets []string
	// Fields says how bodies name things. Default as OSS does.
	Fields callbackspec.Fields
	// Tokens checks upload tokens. Default nil: they are not looked at.
	Tokens *uploadtoken.Keyring
	// TokenOptional lets callbacks without a token pass.
	TokenOptional bool
	// At is the time at which tokens are checked. Default the capture's Date header, or
	// else now.
	At time.Time
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Doctor examines captures.
type Doctor struct {
	cfg         Config
	publicPath  string // escaped path of PublicURL, or ""
	callbackURL *url.URL
}

// New checks the configuration. The error joins all mistakes.
func New(cfg Config) (*Doctor, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	d := &Doctor{cfg: cfg}
	var faults fault.List
	if cfg.PublicURL != "" {
		u, err := parseURL("public URL", cfg.PublicURL)
		if err == nil && u.RawQuery != "" {
			err = fmt.Errorf("public URL %q has a query: leave it out, as for the receiver", cfg.PublicURL)
		}
		if err == nil {
			d.publicPath = cmp.Or(u.EscapedPath(), "/")
		}
		faults.Add(err)
	}
	if cfg.CallbackURL != "" {
		u, err := parseURL("callback URL", cfg.CallbackURL)
		d.callbackURL = u
		faults.Add(err)
	}
	if cfg.Key != nil {
		_, err := verify.NewWithKey("https://key.invalid/", cfg.Key)
		faults.Add(err)
	}
	_, err := verify.New(verify.Config{TrustKeyURLs: cfg.TrustKeyURLs})
	if err = fault.Join(faults, err); err != nil {
		return nil, err
	}
	return d, nil
}

func parseURL(what, raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s %q is not of the form https://host/path", what, raw)
	}
	return u, nil
}

// Examine says what is wrong with a captured callback. It fetches a trusted key that the
// request names, and nothing else. The error is of the configuration.
func (d *Doctor) Examine(ctx context.Context, c *Capture) (*Report, error) {
	v, err := d.verifier(c)
	if err != nil {
		return nil, err
	}
	e := &examination{Doctor: d, capture: c, verifier: v, report: &Report{
		Format: c.Format, Causes: []Cause{}, Refusals: []Refusal{}, Notes: slices.Clone(c.Notes),
	}}
	e.request = verify.Request{
		Target:           d.signedTarget(c.Target),
		Body:             c.Body,
		Authorization:    c.Get("Authorization"),
		PubKeyURL:        c.Get("X-Oss-Pub-Key-Url"),
		SignatureVersion: c.Get("X-Oss-Signature-Version"),
	}
	e.examine(ctx)
	e.report.Accepted = e.report.Verdict == Verifies && len(e.report.Refusals) == 0
	return e.report, nil
}

// verifier makes the receiver's verifier, with a key that was given in the place of the
// server that has it.
func (d *Doctor) verifier(c *Capture) (*verify.Verifier, error) {
	if d.cfg.Key == nil {
		return verify.New(verify.Config{TrustKeyURLs: d.cfg.TrustKeyURLs})
	}
	return verify.NewWithKey(d.keyFileURL(c), d.cfg.Key)
}

// keyFileURL is the URL that the key file stands for.
func (d *Doctor) keyFileURL(c *Capture) string {
	if len(d.cfg.TrustKeyURLs) > 0 {
		return d.cfg.TrustKeyURLs[0]
	}
	named, err := base64.StdEncoding.DecodeString(c.Get("X-Oss-Pub-Key-Url"))
	if err != nil || len(named) == 0 {
		return "https://key.invalid/"
	}
	return string(named)
}

// keyURLs are the values of x-oss-pub-key-url to open a signature with: the request's
// own, then OSS's key, then the other trusted ones.
func (d *Doctor) keyURLs(c *Capture) []string {
	urls := []string{c.Get("X-Oss-Pub-Key-Url"), ""}
	if d.cfg.Key != nil {
		return append(urls, base64.StdEncoding.EncodeToString([]byte(d.keyFileURL(c))))
	}
	for _, trusted := range d.cfg.TrustKeyURLs {
		urls = append(urls, base64.StdEncoding.EncodeToString([]byte(trusted)))
	}
	return urls
}

// signedTarget is the target that the receiver checks: the raw one, with the path of the
// public URL.
func (d *Doctor) signedTarget(target string) string {
	if d.publicPath == "" {
		return target
	}
	if i := strings.IndexByte(target, '?'); i >= 0 {
		return d.publicPath + target[i:]
	}
	return d.publicPath
}

func sumOf(text []byte) string {
	sum := md5.Sum(text)
	return string(hexOf(sum))
}

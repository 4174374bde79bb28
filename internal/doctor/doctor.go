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
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"time"

	"upcall/internal/admission"
	"upcall/internal/fault"
	"upcall/internal/verify"
)

// Config is what the receiver is set to, as far as it is known, and what was captured
// besides.
type Config struct {
	// Admission is the receiver's. Without Tokens, upload tokens are not looked at.
	Admission admission.Config
	// TrustKeyURLs are further public keys that the receiver trusts, see verify.Config.
	TrustKeyURLs []string
	// Key is the PEM file of a further public key, in place of what the first of
	// TrustKeyURLs serves or, without one, the URL that the request names. Default none.
	Key []byte
	// CallbackURL is the whole callback URL that was given to OSS, with its query; the
	// search tries its path and query. Default unknown.
	CallbackURL string
	// At is the time at which tokens are checked. Default the capture's Date header, or
	// else now.
	At time.Time
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Doctor examines captures.
type Doctor struct {
	cfg         Config
	callbackURL *url.URL
}

// New checks the configuration. The error has all mistakes.
func New(cfg Config) (*Doctor, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Admission.Tokens == nil {
		cfg.Admission.TokenPolicy = admission.TokenOff
	}
	d := &Doctor{cfg: cfg}
	var faults fault.List
	faults.Add(cfg.Admission.Check())
	if cfg.CallbackURL != "" {
		u, err := url.Parse(cfg.CallbackURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
			faults.Add(fmt.Errorf("callback URL %q is not of the form https://host/path", cfg.CallbackURL))
		}
		d.callbackURL = u
	}
	if cfg.Key != nil {
		_, err := verify.NewWithKey("https://key.invalid/", cfg.Key)
		faults.Add(err)
	}
	_, err := verify.New(verify.Config{TrustKeyURLs: cfg.TrustKeyURLs})
	if faults.Add(err); len(faults) > 0 {
		return nil, faults
	}
	return d, nil
}

// Examine says what is wrong with a captured callback. It fetches a trusted key that the
// request names, and nothing else. The error is of the configuration.
func (d *Doctor) Examine(ctx context.Context, c *Capture) (*Report, error) {
	v, err := d.verifier(c)
	if err != nil {
		return nil, err
	}
	receiver, err := admission.New(d.cfg.Admission, v)
	if err != nil {
		return nil, err
	}
	direct := d.cfg.Admission
	direct.PublicURL = "" // for requests with the target that was signed
	policy, err := admission.New(direct, v)
	if err != nil {
		return nil, err
	}
	e := &examination{Doctor: d, capture: c, verifier: v, policy: policy, request: c.request(), report: &Report{
		Format: c.Format, Causes: []Cause{}, Refusals: []Refusal{}, Notes: slices.Clone(c.Notes),
	}}
	e.signed = receiver.Signed(&e.request)
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

func sumOf(text []byte) string {
	sum := md5.Sum(text)
	return string(hexOf(sum))
}

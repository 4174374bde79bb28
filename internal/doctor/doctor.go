// Package doctor explains why a captured callback does not verify: what was changed
// between OSS and the receiver, and what to set or fix. It is for the receiver's program.
//
// An RSA signature contains the digest of what was signed. One public operation therefore
// reveals the MD5 of the true string to sign, and each guess at what happened on the way
// costs one MD5. [Doctor.Examine] undoes, within bounds, what proxies, frameworks and
// editors are known to do, one change first and then several, until the digest matches.
// The match proves the guess; package verify then checks the repaired request as it checks
// any other.
package doctor

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"time"

	"upcall/internal/admission"
	"upcall/internal/fault"
	"upcall/internal/verify"
)

// Config is what is known of the receiver's settings, and what was captured besides.
type Config struct {
	// Admission is the receiver's. Without Tokens, upload tokens are not checked.
	Admission admission.Config
	// TrustKeyURLs are further public keys that the receiver trusts, see verify.Config.
	TrustKeyURLs []string
	// Key is the PEM file of a further public key. It replaces what the first of
	// TrustKeyURLs serves or, without one, the URL that the request names. Default none.
	Key []byte
	// CallbackURL is the whole callback URL that was given to OSS, with its query; the
	// search tries its path and query. Default unknown.
	CallbackURL string
	// At is the time for which tokens are checked. Default when the capture came, its Date
	// header, or else now.
	At time.Time
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// A Doctor examines captures.
type Doctor struct {
	cfg            Config
	callbackTarget string // the target of a request to the callback URL, "" if unknown
}

// New checks the configuration. The error lists all mistakes.
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
		} else {
			d.callbackTarget = u.RequestURI()
		}
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

// Examine finds out what is wrong with a captured callback. It fetches a trusted key that
// the request names, and nothing else. The error is about the configuration.
func (d *Doctor) Examine(ctx context.Context, c *Capture) (*Report, error) {
	v, keyURLs, err := d.keys(c)
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
	e := &examination{
		Doctor: d, capture: c, verifier: v, keyURLs: keyURLs, policy: policy, request: c.request(),
		report: &Report{Format: c.Format, Causes: []Cause{}, Oddities: []Oddity{}, Refusals: []Refusal{}, Notes: slices.Clone(c.Notes)},
	}
	e.signed = receiver.Signed(&e.request)
	e.examine(ctx)
	e.report.Accepted = e.report.Verdict == Verifies && len(e.report.Refusals) == 0
	return e.report, nil
}

// keys returns the receiver's verifier, in which the key file takes the place of a key
// server, and the values of x-oss-pub-key-url to open a signature with: the request's own,
// then OSS's, then those of the other trusted keys.
func (d *Doctor) keys(c *Capture) (v *verify.Verifier, keyURLs []string, err error) {
	header := c.Get("X-Oss-Pub-Key-Url")
	trusted := d.cfg.TrustKeyURLs
	if d.cfg.Key == nil {
		v, err = verify.New(verify.Config{TrustKeyURLs: trusted})
	} else {
		named, malformed := base64.StdEncoding.DecodeString(header)
		if malformed != nil {
			named = nil
		}
		trusted = []string{cmp.Or(slices.Concat(trusted, []string{string(named), "https://key.invalid/"})...)}
		v, err = verify.NewWithKey(trusted[0], d.cfg.Key)
	}
	keyURLs = []string{header, ""}
	for _, u := range trusted {
		keyURLs = append(keyURLs, base64.StdEncoding.EncodeToString([]byte(u)))
	}
	return v, keyURLs, err
}

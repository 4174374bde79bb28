package doctor

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"upcall/internal/verify"
)

// headerCauses adds what was done to the headers that the signature stands on.
func (e *examination) headerCauses(sig openedSignature) {
	add := func(c Cause) { e.report.Causes = append(e.report.Causes, c) }
	if sig.header != "" {
		c := cause(SignatureHeader, "", "")
		c.What += ": " + sig.header
		add(c)
	}
	for _, kind := range sig.kinds {
		add(cause(kind, "", "")) // the values are long, and say nothing to people
	}
	if named := e.request.PubKeyURL; sig.keyURL != named {
		shown := Mark(named)
		if decoded, err := base64.StdEncoding.DecodeString(named); err == nil {
			shown = Mark(decoded)
		}
		c := cause(KeyURL, "", "")
		c.What = fmt.Sprintf("x-oss-pub-key-url names %s, but the signature is by %s", shorten(shown, 200), e.report.Key)
		if named == "" {
			c.What = "there is no x-oss-pub-key-url, but the signature is by " + e.report.Key
		}
		add(c)
	}
	if version := e.request.SignatureVersion; version != "" && version != "1.0" {
		add(cause(SignatureVersion, shorten(Mark(version), 40), "1.0"))
	}
}

// contentCauses adds what was done to path, query and body.
func (e *examination) contentCauses(received message, m *match, failure *verify.Failure) {
	add := func(c Cause) { e.report.Causes = append(e.report.Causes, c) }
	if strings.Contains(m.path+m.query, "\n") {
		add(cause(BoundaryMoved, Mark(m.path), ""))
	} else if failure == verify.ErrTarget && len(m.pathKinds)+len(m.queryKinds) == 0 {
		add(cause(TargetForm, Mark(e.signed.Target), Mark(m.path)))
	}
	for i, kind := range m.pathKinds {
		c := changed(i, kind, received.path, m.path)
		if kind != PublicURL {
			c.Fix = "set UPCALL_PUBLIC_URL=" + e.publicURL(m.path) + ", or " + c.Fix
		}
		add(c)
	}
	for i, kind := range m.queryKinds {
		add(changed(i, kind, received.query, m.query))
	}
	for i, kind := range m.bodyKinds {
		add(changed(i, kind, received.body, m.body))
	}
}

// changed is the cause at index i of those of one part; the first shows the part.
func changed(i int, kind Kind, received, signed string) Cause {
	if i > 0 {
		return cause(kind, "", "")
	}
	return cause(kind, Mark(received), Mark(signed))
}

// publicURL is what to set so that the receiver checks that path. Only the path counts.
func (e *examination) publicURL(path string) string {
	u := url.URL{Scheme: "https", Host: cmp.Or(e.capture.Get("X-Forwarded-Host"), e.capture.Get("Host"), "HOST"), Path: path}
	for _, known := range []string{e.cfg.CallbackURL, e.cfg.Admission.PublicURL} {
		if k, err := url.Parse(known); err == nil && k.Host != "" {
			u.Scheme, u.Host = k.Scheme, k.Host
			break
		}
	}
	return Mark(u.String())
}

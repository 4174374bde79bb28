package doctor

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"upcall/internal/verify"
)

// cause adds a cause to the report and returns it. The texts are marked.
func (e *examination) cause(kind Kind, received, signed string) *Cause {
	e.report.Causes = append(e.report.Causes, Cause{kind, kind.what, kind.fix, received, signed})
	return &e.report.Causes[len(e.report.Causes)-1]
}

// headerCauses adds what was done to the headers that the signature depends on.
func (e *examination) headerCauses(sig openedSignature) {
	if sig.header != "Authorization" {
		e.cause(SignatureHeader, "", "").What += ": " + sig.header
	}
	for _, kind := range sig.kinds {
		e.cause(kind, "", "") // the values are long and tell people nothing
	}
	if named := e.request.PubKeyURL; sig.keyURL != named {
		shown, err := base64.StdEncoding.DecodeString(named)
		if err != nil {
			shown = []byte(named)
		}
		c := e.cause(KeyURL, "", "")
		c.What = fmt.Sprintf("x-oss-pub-key-url names %s, but the signature is by %s", shorten(Mark(shown), 200), e.report.Key)
		if named == "" {
			c.What = "there is no x-oss-pub-key-url, but the signature is by " + e.report.Key
		}
	}
	if version := e.request.SignatureVersion; version != "" && version != "1.0" {
		e.cause(SignatureVersion, shorten(Mark(version), 40), "1.0")
	}
}

// contentCauses adds what was done to path, query and body.
func (e *examination) contentCauses(received message, m *match, failure *verify.Failure) {
	if strings.Contains(m.message[thePath]+m.message[theQuery], "\n") {
		e.cause(BoundaryMoved, Mark(m.message[thePath]), "")
	} else if failure == verify.ErrTarget && len(m.kinds[thePath])+len(m.kinds[theQuery]) == 0 {
		e.cause(TargetForm, Mark(e.signed.Target), Mark(m.message[thePath]))
	}
	for part, kinds := range m.kinds {
		for i, kind := range kinds {
			c := e.cause(kind, "", "")
			if i == 0 { // the first shows the part
				c.Received, c.Signed = Mark(received[part]), Mark(m.message[part])
			}
			if part == thePath && kind != PublicURL {
				c.Fix = "set UPCALL_PUBLIC_URL=" + e.publicURL(m.message[thePath]) + ", or " + c.Fix
			}
		}
	}
}

// publicURL is the setting with which the receiver checks that path. Only its path counts.
func (e *examination) publicURL(path string) string {
	host := cmp.Or(e.capture.Get("X-Forwarded-Host"), e.capture.Get("Host"), "HOST")
	u := url.URL{Scheme: "https", Host: host, Path: path}
	for _, known := range []string{e.cfg.CallbackURL, e.cfg.Admission.PublicURL} {
		if k, err := url.Parse(known); err == nil && k.Host != "" {
			u.Scheme, u.Host = k.Scheme, k.Host
			break
		}
	}
	return Mark(u.String())
}

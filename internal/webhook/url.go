package webhook

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"upcall/internal/fault"
)

// ErrURL says that messages cannot go to a URL.
var ErrURL = errors.New("wrong URL")

// maxURL is the longest URL in bytes.
const maxURL = 2048

// ParseURL reads the URL of an application. The error wraps [ErrURL] and does not hold the path
// or the query, which may hold secrets.
func ParseURL(text string) (*url.URL, error) {
	const example = "give one like https://app.example.com/hooks"
	bad := func(fix, problem string, args ...any) (*url.URL, error) {
		return nil, fault.New(ErrURL, "", fix, problem, args...)
	}
	if text == "" {
		return bad(example, "there is no URL")
	}
	if len(text) > maxURL {
		return bad("", "it has %d bytes; the most is %d", len(text), maxURL)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return bad("percent-encode what is not ASCII, and write a host in Punycode",
			"it has a space or another character that no URL holds")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Scheme != "http" && u.Scheme != "https":
		return bad(example, "it is not a URL of https")
	case u.User != nil:
		return bad("leave them out: the signature says who asks", "it holds a user name or a password")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return bad("leave out what begins with #", "it has a fragment, which is not sent")
	case u.Hostname() == "":
		return bad(example, "it has no host")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad("give 1 to 65535, or none", "its port is not a port")
		}
	}
	return u, nil
}

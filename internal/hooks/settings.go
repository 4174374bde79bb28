package hooks

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"upcall/internal/fault"
	"upcall/internal/webhook"
)

var (
	// ErrName says that a text is not the name of an endpoint.
	ErrName = errors.New("not a name of an endpoint")
	// ErrHeader says that a header cannot be sent with deliveries.
	ErrHeader = errors.New("wrong header")
	// ErrLimit says that a number is out of bounds.
	ErrLimit = errors.New("out of bounds")
	// ErrFrom says that a text does not say where in the log to begin.
	ErrFrom = errors.New("not a place in the log")
)

const (
	// DefaultMaxInFlight is how many requests an endpoint gets at once if nothing else is set.
	DefaultMaxInFlight = 8
	// maxMaxInFlight is as many as a process sends to all endpoints together.
	maxMaxInFlight = 64

	maxHeaders     = 20
	maxHeaderValue = 4096
)

// Settings are what an operator says of an endpoint. Its JSON is that of the API and, with
// other ways to give the secret, of the file.
type Settings struct {
	Name string `json:"name"` // unique; "" makes one
	URL  string `json:"url"`
	Filter
	MaxInFlight int               `json:"max_in_flight"` // requests at once; 0 is the default
	Headers     map[string]string `json:"headers"`       // sent with each delivery; their values are secrets
}

// A Change changes those settings that are not nil.
type Change struct {
	Name        *string            `json:"name"`
	URL         *string            `json:"url"`
	On          *[]webhook.Kind    `json:"on"`
	Buckets     *[]string          `json:"buckets"`
	KeyPrefixes *[]string          `json:"key_prefixes"`
	KeyGlobs    *[]string          `json:"key_globs"`
	MimeTypes   *[]string          `json:"mime_types"`
	Vars        *map[string]string `json:"vars"`
	MaxInFlight *int               `json:"max_in_flight"`
	Headers     *map[string]string `json:"headers"`
}

// Apply returns the settings after the change.
func (c Change) Apply(s Settings) Settings {
	set(&s.Name, c.Name)
	set(&s.URL, c.URL)
	set(&s.On, c.On)
	set(&s.Buckets, c.Buckets)
	set(&s.KeyPrefixes, c.KeyPrefixes)
	set(&s.KeyGlobs, c.KeyGlobs)
	set(&s.MimeTypes, c.MimeTypes)
	set(&s.Vars, c.Vars)
	set(&s.MaxInFlight, c.MaxInFlight)
	set(&s.Headers, c.Headers)
	return s
}

func set[T any](field, to *T) {
	if to != nil {
		*field = *to
	}
}

// withDefaults returns the settings with those that were left out. Lists are never nil, so
// that they are [] in JSON.
func (s Settings) withDefaults() Settings {
	if len(s.On) == 0 {
		s.On = []webhook.Kind{webhook.Recorded}
	}
	for _, list := range []*[]string{&s.Buckets, &s.KeyPrefixes, &s.KeyGlobs, &s.MimeTypes} {
		if *list == nil {
			*list = []string{}
		}
	}
	if s.Vars == nil {
		s.Vars = map[string]string{}
	}
	if s.Headers == nil {
		s.Headers = map[string]string{}
	}
	if s.MaxInFlight == 0 {
		s.MaxInFlight = DefaultMaxInFlight
	}
	return s
}

// Check returns all mistakes in the settings. Their fields are members of the JSON; each is one
// line, and none holds a secret.
func (s Settings) Check(rules Rules) error {
	var faults fault.List
	if s.Name != "" {
		faults.Add(fault.In("name", checkName(s.Name)))
	}
	faults.Add(fault.In("url", rules.checkURL(s.URL)), s.Filter.check())
	if s.MaxInFlight < 0 || s.MaxInFlight > maxMaxInFlight {
		faults.AddNew(ErrLimit, "max_in_flight", "", "%d is not between 1 and %d", s.MaxInFlight, maxMaxInFlight)
	}
	faults.Add(fault.In("headers", checkHeaders(s.Headers)))
	return faults.Err()
}

var endpointName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// checkName keeps names apart from ids, so that a command can take either.
func checkName(name string) error {
	if _, err := uuid.Parse(name); err == nil || !endpointName.MatchString(name) {
		return fault.New(ErrName, "", "use up to 63 letters, digits, dots, hyphens and underscores, and not the form of an id",
			"%s is not a name", fault.Quote(name))
	}
	return nil
}

// headerName is a token (RFC 9110, section 5.6.2).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")

// ours are the headers that deliveries and HTTP itself set: a second value would make
// endpoints refuse a delivery, or split the request.
var ours = []string{"host", "connection", "content-encoding", "content-length", "content-type", "date", "expect", "keep-alive",
	"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func checkHeaders(headers map[string]string) error {
	var faults fault.List
	if len(headers) > maxHeaders {
		faults.AddNew(ErrHeader, "", "", "there are %d; the most is %d", len(headers), maxHeaders)
	}
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value, lower := headers[name], strings.ToLower(name)
		isBad := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
		switch {
		case !headerName.MatchString(name):
			faults.AddNew(ErrHeader, "", "write NAME=VALUE, as in Authorization=Bearer …", "%s is not the name of a header", fault.Quote(name))
		case slices.Contains(ours, lower) || strings.HasPrefix(lower, "webhook-"):
			faults.AddNew(ErrHeader, "", "leave it out", "%s is set by each delivery", name)
		case seen[lower]:
			faults.AddNew(ErrHeader, "", "leave one out", "%s is given twice", name)
		case strings.ContainsFunc(value, isBad) || strings.TrimSpace(value) != value || len(value) > maxHeaderValue:
			faults.AddNew(ErrHeader, "", "give up to 4096 bytes on one line, without spaces at the ends",
				"the value of %s is not that of a header", name)
		}
		seen[lower] = true
	}
	return faults.Err()
}

// A Start says from where in the log a new endpoint is told: from now on, if it is zero.
type Start struct {
	Oldest bool      // from the oldest event that is kept
	Since  time.Time // from the first event that was received then or later
}

// ParseStart reads now, oldest or a time in RFC 3339. "" is now. The error wraps [ErrFrom].
func ParseStart(text string) (Start, error) {
	switch text {
	case "", "now":
		return Start{}, nil
	case "oldest":
		return Start{Oldest: true}, nil
	}
	at, err := ParseTime(text)
	if err != nil {
		return Start{}, fault.New(ErrFrom, "", "write now, oldest, or a time like 2026-11-27T08:00:00Z", "%s is none of them", fault.Quote(text))
	}
	return Start{Since: at}, nil
}

// ParseTime reads a time in RFC 3339, of a year that PostgreSQL and event ids can hold.
func ParseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, fault.New(ErrFrom, "", "write it like 2026-11-27T08:00:00Z", "%s is not a time", fault.Quote(text))
	}
	return at.UTC(), nil
}

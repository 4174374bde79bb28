package api

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"upcall/internal/event"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/hooks"
)

const (
	mostEvents   = 1000
	someEvents   = 100 // if the call names no limit
	longestWait  = 30 * time.Second
	varParameter = "var."
)

var errParameter = errors.New("wrong parameter")

// parameters are those of a query, each given once.
type parameters struct {
	values url.Values
	faults fault.List
}

// parseQuery reads a query with no other parameters than those, where "var." stands for all
// that begin so.
func parseQuery(text string, known ...string) *parameters {
	p := &parameters{}
	values, err := url.ParseQuery(text)
	if err != nil {
		p.faults.AddNew(errParameter, "query", "encode it as application/x-www-form-urlencoded", "it cannot be read")
		return p
	}
	p.values = values
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		prefixed := strings.HasPrefix(name, varParameter) && slices.Contains(known, varParameter)
		switch {
		case name == "":
			p.faults.AddNew(errParameter, "query", "leave it out", "a parameter has no name")
		case name == varParameter || !prefixed && !slices.Contains(known, name):
			p.faults.AddNew(errParameter, fault.Name(name), "", "this call has no such parameter")
		case len(values[name]) > 1:
			p.faults.AddNew(errParameter, fault.Name(name), "leave one out", "it is given %d times", len(values[name]))
		case values[name][0] == "":
			p.faults.AddNew(errParameter, fault.Name(name), "leave it out", "it is empty")
		}
	}
	return p
}

func (p *parameters) text(name string) string { return p.values.Get(name) }

func (p *parameters) number(name string, otherwise, least, most int) int {
	text := p.text(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		p.faults.AddNew(errParameter, name, "", "%s is not a number from %d to %d", fault.Quote(text), least, most)
	}
	return n
}

func (p *parameters) wait() time.Duration {
	text := p.text("wait")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > longestWait {
		p.faults.AddNew(errParameter, "wait", "", "%s is not a time from 0s to 30s", fault.Quote(text))
	}
	return d
}

// parameterOf are the parameters of the members that a filter's mistakes name.
var parameterOf = map[string]string{"buckets": "bucket", "key_prefixes": "key_prefix", "vars": "var"}

// filter returns a function that reports whether an event is asked for; nil if all are.
func (p *parameters) filter() func(*event.Event) bool {
	var f hooks.Filter
	if bucket := p.text("bucket"); bucket != "" {
		f.Buckets = []string{bucket}
	}
	if prefix := p.text("key_prefix"); prefix != "" {
		f.KeyPrefixes = []string{prefix}
	}
	for name, values := range p.values {
		if name, ok := strings.CutPrefix(name, varParameter); ok && name != "" {
			if f.Vars == nil {
				f.Vars = make(map[string]string)
			}
			f.Vars[name] = values[0]
		}
	}
	if f.Buckets == nil && f.KeyPrefixes == nil && f.Vars == nil || len(p.faults) > 0 {
		return nil
	}
	matches, err := f.Matcher()
	for _, m := range fault.Of(err) {
		m.Problem = strings.TrimPrefix(m.Problem, "bucket: ")
		m.Field = parameterOf[m.Field]
		p.faults = append(p.faults, m)
	}
	return matches
}

// A place is where a reading begins.
type place struct {
	cursor feed.Cursor
	oldest bool
	now    bool
}

// place reads a cursor.
func (p *parameters) place(name, text string) (at place) {
	switch text {
	case "":
		at.oldest = true
	case "now":
		at.now = true
	default:
		cursor, err := feed.ParseCursor(text)
		if err != nil {
			p.faults.AddNew(err, name, "give the next of an answer, the id of an event of the stream, or now", "%v", err)
		}
		at.cursor = cursor
	}
	return at
}

// find returns the cursor of a place. A call that begins as the receiver stops still gets an
// answer.
func (s *Server) find(ctx context.Context, at place) (feed.Cursor, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	switch {
	case at.now:
		return s.cfg.Log.Now(ctx)
	case at.oldest:
		return s.cfg.Log.Oldest(ctx)
	}
	return at.cursor, nil
}

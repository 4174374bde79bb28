package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"upcall/internal/fault"
	"upcall/internal/hooks"
	"upcall/internal/strictjson"
	"upcall/internal/webhook"
)

var errMember = errors.New("wrong member")

// members are the readers of a body's members.
type members map[string]strictjson.Reader

// read reads the body of a request strictly. The error has all mistakes in its form.
func (known members) read(r *http.Request) error {
	body, err := strictjson.Body(r, mostBody)
	switch {
	case errors.Is(err, strictjson.ErrMediaType):
		return &problem{kind: kindMediaType, detail: err.Error()}
	case errors.Is(err, strictjson.ErrTooLarge):
		return &problem{kind: kindTooLarge, detail: err.Error()}
	case err != nil:
		return fault.New(err, "body", "", "it ended early or came too slowly")
	}
	var faults fault.List
	note := func(name, wrong string) {
		field := "body"
		if name != "" {
			field = fault.Name(name)
		}
		faults.AddNew(errMember, field, "", "%s", wrong)
	}
	strictjson.Object(body, note, func(name string, raw json.RawMessage) {
		read, ok := known[name]
		if !ok {
			note(name, "is not known here")
		} else if wrong := read(raw); wrong != "" {
			note(name, wrong)
		}
	})
	return faults.Err()
}

// readIfAny is read for calls whose body may be left out.
func (known members) readIfAny(r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	return known.read(r)
}

// given returns a reader that also tells that the member is there.
func given[T any](to **T, reader func(*T) strictjson.Reader) strictjson.Reader {
	return func(raw json.RawMessage) string {
		*to = new(T)
		return reader(*to)(raw)
	}
}

// changeMembers read the settings of an endpoint that are given.
func changeMembers(c *hooks.Change) members {
	return members{
		"name":         given(&c.Name, strictjson.Text),
		"url":          given(&c.URL, strictjson.Text),
		"on":           given(&c.On, kinds),
		"buckets":      given(&c.Buckets, strictjson.Texts),
		"key_prefixes": given(&c.KeyPrefixes, strictjson.Texts),
		"key_globs":    given(&c.KeyGlobs, strictjson.Texts),
		"mime_types":   given(&c.MimeTypes, strictjson.Texts),
		"vars":         given(&c.Vars, textMap),
		"headers":      given(&c.Headers, textMap),
		"max_in_flight": given(&c.MaxInFlight, func(to *int) strictjson.Reader {
			return func(raw json.RawMessage) string {
				var n *int64
				if wrong := strictjson.Whole(&n)(raw); wrong != "" || *n < 1 || *n > 64 { // 0 would be the default
					return "is not a number from 1 to 64"
				}
				*to = int(*n)
				return ""
			}
		}),
	}
}

func kinds(to *[]webhook.Kind) strictjson.Reader {
	return func(raw json.RawMessage) string {
		var texts []string
		wrong := strictjson.Texts(&texts)(raw)
		for _, text := range texts {
			*to = append(*to, webhook.Kind(text))
		}
		return wrong
	}
}

// textMap reads an object whose members are strings.
func textMap(to *map[string]string) strictjson.Reader {
	return func(raw json.RawMessage) (wrong string) {
		*to = make(map[string]string)
		note := func(name, what string) {
			if name != "" {
				what = fault.Name(name) + " " + what
			}
			wrong = what
		}
		strictjson.Object(raw, note, func(name string, raw json.RawMessage) {
			var text string
			if what := strictjson.Text(&text)(raw); what != "" {
				note(name, what)
			}
			(*to)[name] = text
		})
		return wrong
	}
}

// parsed makes a reader of strings that parse takes. What it says of a text is shown.
func parsed[T any](parse func(string) (T, error)) func(*T) strictjson.Reader {
	return func(to *T) strictjson.Reader {
		return func(raw json.RawMessage) string {
			var text string
			if wrong := strictjson.Text(&text)(raw); wrong != "" {
				return wrong
			}
			value, err := parse(text)
			if err != nil {
				return err.Error()
			}
			*to = value
			return ""
		}
	}
}

func parseKeep(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fault.New(errMember, "", "write 24h, 90m or 0s", "%s is not a duration", fault.Quote(text))
	}
	return d, nil
}

func parseEventID(text string) (uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 || id == uuid.Nil {
		return uuid.Nil, fault.New(errMember, "", "", "%s is not the id of an event", fault.Quote(text))
	}
	return id, nil
}

// parseFrom reads where an endpoint begins. The text "" is none.
func parseFrom(text string) (hooks.Start, error) {
	if text == "" {
		text = `""`
	}
	return hooks.ParseStart(text)
}

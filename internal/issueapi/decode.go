package issueapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/policy"
)

// maxBody is the largest request in bytes. OSS accepts 5 KB of variables and a key of 1023
// bytes, which JSON escapes may make six times as long.
const maxBody = 64 << 10

// readBody returns the body of a request, which must be declared as JSON.
func readBody(r *http.Request) ([]byte, error) {
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := parameters["charset"]
	if err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, problemOf(kindMediaType, "send it with Content-Type: application/json")
	}
	// A compressed body may unpack to a thousand times its size.
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, problemOf(kindMediaType, "send it without a content encoding")
	}
	if r.ContentLength > maxBody {
		return nil, problemOf(kindTooLarge, "the body is larger than 64 KiB")
	}
	// The limit holds whatever the length says: a chunked body has none and may never end.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case len(body) > maxBody:
		return nil, problemOf(kindTooLarge, "the body is larger than 64 KiB")
	case err != nil:
		rules := []policy.Violation{{Rule: ruleJSON, Detail: "the body ended early or came too slowly"}}
		return nil, &problem{kind: kindMalformed, errors: rules, cause: err}
	}
	return body, nil
}

// An uploadRequest is what an application asks for.
type uploadRequest struct {
	policy.Request
	PartSize *int64 // of multipart uploads
}

// decodeUpload reads the body of a request strictly. It refuses misspelt or duplicate fields
// and wrong types, because ignoring them could drop a limit that the application meant to set. The
// error is a problem with all mistakes.
func decodeUpload(body []byte, multipart bool) (uploadRequest, error) {
	var r uploadRequest
	d := &decoder{}
	fields := uploadFields(&r, multipart, d)
	d.object(body, "", func(name string, raw json.RawMessage) {
		into, ok := fields[name]
		if !ok {
			d.note(ruleField, fault.Short(name), "is not known here")
			return
		}
		if wrong := into(raw); wrong != "" {
			d.note(ruleField, name, wrong)
		}
	})
	if r.PartSize != nil && *r.PartSize < 1 { // to package issue, 0 means "choose one"
		d.note(ruleField, "part_size", "is not a size; leave it out to have one chosen")
	}
	if len(d.errors) > 0 {
		return uploadRequest{}, &problem{kind: kindMalformed, errors: d.errors}
	}
	return r, nil
}

// uploadFields returns, for each field of a request, a function that reads its value into r
// and returns what is wrong with it, or "".
func uploadFields(r *uploadRequest, multipart bool, d *decoder) map[string]func(raw json.RawMessage) string {
	fields := map[string]func(raw json.RawMessage) string{
		"bucket":       textInto(&r.Bucket),
		"key":          textInto(&r.Key),
		"key_template": textInto(&r.KeyTemplate),
		// A file name in a browser may be invalid Unicode; the policy replaces such characters.
		"filename":     anyTextInto(&r.Filename),
		"content_type": textInto(&r.ContentType),
		"size":         wholeInto(&r.Size),
		"expires_in":   durationInto(&r.Expires),
		"vars": func(raw json.RawMessage) string {
			d.vars(raw, &r.Vars) // notes each mistake itself
			return ""
		},
	}
	if multipart {
		fields["part_size"] = wholeInto(&r.PartSize)
	}
	return fields
}

// A decoder collects the mistakes in a document.
type decoder struct{ errors []policy.Violation }

func (d *decoder) note(rule, field, detail string) {
	d.errors = append(d.errors, policy.Violation{Rule: rule, Field: field, Detail: detail})
}

// object calls each for every member of a JSON object. It refuses duplicate names, of which
// one reader takes the first and another the last; invalid UTF-8, which encoding/json would
// replace; and anything after the object. The field "" means the whole body.
func (d *decoder) object(doc []byte, field string, each func(name string, raw json.RawMessage)) {
	rule := ruleField
	if field == "" {
		rule = ruleJSON
	}
	if !utf8.Valid(doc) {
		d.note(rule, field, "is not UTF-8")
		return
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	token, err := dec.Token()
	if err != nil || token != json.Delim('{') {
		d.note(rule, field, "is not a JSON object")
		return
	}
	seen := make(map[string]bool)
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		var raw json.RawMessage
		if err == nil && ok {
			err = dec.Decode(&raw)
		}
		if err != nil || !ok {
			d.note(rule, field, "is not valid JSON: "+where(err, dec))
			return
		}
		if seen[name] {
			d.note(ruleField, strings.TrimPrefix(field+"."+fault.Short(name), "."), "is given twice; leave one out")
			continue
		}
		seen[name] = true
		each(name, raw)
	}
	if _, err := dec.Token(); err != nil {
		d.note(rule, field, "is not valid JSON: "+where(err, dec))
		return
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		d.note(rule, field, "continues after the JSON object")
	}
}

// where says at which byte a document becomes invalid, and does not show what is there.
func where(err error, dec *json.Decoder) string {
	at := dec.InputOffset()
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = syntax.Offset
	}
	return "error at byte " + strconv.FormatInt(at, 10)
}

func (d *decoder) vars(raw json.RawMessage, vars *map[string]string) {
	*vars = make(map[string]string)
	d.object(raw, "vars", func(name string, raw json.RawMessage) {
		name = strings.TrimPrefix(name, callbackspec.VarPrefix) // as OSS's documentation writes it
		if _, twice := (*vars)[name]; twice {
			d.note(ruleField, "vars."+fault.Short(name), "is given twice, with and without x:; leave one out")
			return
		}
		var value string
		if wrong := textInto(&value)(raw); wrong != "" {
			d.note(ruleField, "vars."+fault.Short(name), wrong)
			return
		}
		(*vars)[name] = value
	})
}

func anyTextInto(to *string) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		if raw[0] != '"' || json.Unmarshal(raw, to) != nil {
			return "is not a string" // null is refused too: to omit a field, leave it out
		}
		return ""
	}
}

// textInto refuses half a surrogate pair, which encoding/json replaces with U+FFFD: the key
// or the variable would not be the one that was asked for.
func textInto(to *string) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		if wrong := anyTextInto(to)(raw); wrong != "" {
			return wrong
		}
		if strings.ContainsRune(*to, utf8.RuneError) {
			return "holds U+FFFD or half a surrogate pair, which stand for text that was lost"
		}
		return ""
	}
}

func wholeInto(to **int64) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return "is not a whole number; write, for example, 1048576"
		}
		*to = &n
		return ""
	}
}

func durationInto(to **time.Duration) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		var text string
		if wrong := textInto(&text)(raw); wrong != "" {
			return wrong + `; write a duration, as in "1h"`
		}
		d, err := policy.ParseDuration(text)
		if err != nil {
			return err.Error()
		}
		*to = &d
		return ""
	}
}

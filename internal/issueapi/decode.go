package issueapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/policy"
	"upcall/internal/strictjson"
)

// maxBody is the largest request in bytes. OSS accepts 5 KB of variables and a key of 1023
// bytes, which JSON escapes may make six times as long.
const maxBody = 64 << 10

// readBody returns the body of a request, which must be declared as JSON.
func readBody(r *http.Request) ([]byte, error) {
	body, err := strictjson.Body(r, maxBody)
	switch {
	case errors.Is(err, strictjson.ErrMediaType):
		return nil, problemOf(kindMediaType, err.Error())
	case errors.Is(err, strictjson.ErrTooLarge):
		return nil, problemOf(kindTooLarge, err.Error())
	case err != nil:
		rules := []policy.Violation{{Rule: ruleJSON, Detail: strictjson.ErrCut.Error()}}
		return nil, &problem{kind: kindMalformed, errors: rules, cause: err}
	}
	return body, nil
}

// A form is the way in which an upload is sent.
type form int

const (
	atOnce  form = iota // by one PUT
	inParts             // of a multipart upload
	asForm              // by a form of a web page
)

// An uploadRequest is what an application asks for.
type uploadRequest struct {
	policy.Request
	PartSize *int64 // of multipart uploads
}

// decodeUpload reads the body of a request strictly. It refuses misspelt or duplicate fields
// and wrong types, because ignoring them could drop a limit that the application meant to set. The
// error is a problem with all mistakes.
func decodeUpload(body []byte, of form) (uploadRequest, error) {
	r := uploadRequest{Request: policy.Request{Form: of == asForm}}
	d := &decoder{}
	fields := uploadFields(&r, of, d)
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
func uploadFields(r *uploadRequest, of form, d *decoder) map[string]strictjson.Reader {
	fields := map[string]strictjson.Reader{
		"bucket":       strictjson.Text(&r.Bucket),
		"key":          strictjson.Text(&r.Key),
		"key_template": strictjson.Text(&r.KeyTemplate),
		// A file name in a browser may be invalid Unicode; the policy replaces such characters.
		"filename":     strictjson.AnyText(&r.Filename),
		"content_type": strictjson.Text(&r.ContentType),
		"expires_in":   durationInto(&r.Expires),
		"vars": func(raw json.RawMessage) string {
			d.vars(raw, &r.Vars) // notes each mistake itself
			return ""
		},
	}
	switch of {
	case asForm:
		fields["key_prefix"] = strictjson.Text(&r.KeyPrefix)
		fields["min_size"], fields["max_size"] = strictjson.Whole(&r.MinSize), strictjson.Whole(&r.MaxSize)
	case inParts:
		fields["part_size"] = strictjson.Whole(&r.PartSize)
		fallthrough
	default:
		fields["size"] = strictjson.Whole(&r.Size)
	}
	return fields
}

// A decoder collects the mistakes in a document.
type decoder struct{ errors []policy.Violation }

func (d *decoder) note(rule, field, detail string) {
	d.errors = append(d.errors, policy.Violation{Rule: rule, Field: field, Detail: detail})
}

// object calls each for every member of a JSON object. The field "" means the whole body.
func (d *decoder) object(doc []byte, field string, each func(name string, raw json.RawMessage)) {
	strictjson.Object(doc, func(name, wrong string) {
		switch {
		case name != "":
			d.note(ruleField, strings.TrimPrefix(field+"."+fault.Short(name), "."), wrong)
		case field != "":
			d.note(ruleField, field, wrong)
		default:
			d.note(ruleJSON, "", wrong)
		}
	}, each)
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
		if wrong := strictjson.Text(&value)(raw); wrong != "" {
			d.note(ruleField, "vars."+fault.Short(name), wrong)
			return
		}
		(*vars)[name] = value
	})
}

func durationInto(to **time.Duration) strictjson.Reader {
	return func(raw json.RawMessage) string {
		var text string
		if wrong := strictjson.Text(&text)(raw); wrong != "" {
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

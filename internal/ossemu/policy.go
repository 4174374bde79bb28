package ossemu

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A policy is the signed document that bounds what a form may upload.
type policy struct {
	expiration time.Time
	conditions []condition
	minSize    int64
	maxSize    int64 // math.MaxInt64 without content-length-range
}

// A condition is about one form field, lower case.
type condition struct {
	operator string // eq, starts-with, in or not-in
	field    string
	values   []string
	source   string // as written, for the error
}

const maxPolicy = 64 << 10 // bytes of Base64

// invalidPolicy is an error about the document, with the EC number of its page.
func invalidPolicy(ec, format string, args ...any) error {
	return errPolicyDocument.saying("Invalid Policy: "+fmt.Sprintf(format, args...), ec)
}

// parsePolicy reads the Base64 of a policy document. Unknown operators are refused: an
// unread condition would be a bound that does not hold.
func parsePolicy(encoded string) (policy, error) {
	if len(encoded) > maxPolicy {
		return policy{}, invalidPolicy("", "larger than %d bytes.", maxPolicy)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return policy{}, invalidPolicy("0006-00000201", "not Base64.")
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		return policy{}, invalidPolicy("0006-00000204", "Invalid JSON.")
	}
	expiration, conditions := doc["expiration"], doc["conditions"]
	switch {
	case expiration == nil && conditions == nil:
		return policy{}, invalidPolicy("0006-00000209", "expiration and conditions are missing.")
	case expiration == nil:
		return policy{}, invalidPolicy("0006-00000208", "expiration is missing.")
	case conditions == nil:
		return policy{}, invalidPolicy("", "conditions are missing.")
	}
	p := policy{maxSize: math.MaxInt64}
	if p.expiration, err = parseExpiration(expiration); err != nil {
		return policy{}, err
	}
	var list []json.RawMessage
	if json.Unmarshal(conditions, &list) != nil {
		return policy{}, invalidPolicy("0006-00000214", "conditions must be a list.")
	}
	if len(list) == 0 {
		return policy{}, invalidPolicy("0006-00000215",
			"Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
	}
	for _, raw := range list {
		if err := p.add(raw); err != nil {
			return policy{}, err
		}
	}
	return p, nil
}

func parseExpiration(raw json.RawMessage) (time.Time, error) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return time.Time{}, invalidPolicy("0006-00000210", "expiration must be a string.")
	}
	if text == "" {
		return time.Time{}, invalidPolicy("0006-00000211", "expiration is empty.")
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, invalidPolicy("", "Invalid expiration.")
	}
	return t, nil
}

func (p *policy) add(raw json.RawMessage) error {
	raw = bytes.TrimSpace(raw)
	invalid := func(ec, why string) error { return invalidPolicy(ec, "%s in %s.", why, raw) }
	if bytes.HasPrefix(raw, []byte("{")) {
		var simple map[string]string
		if err := json.Unmarshal(raw, &simple); err != nil || len(simple) != 1 {
			return invalid("", "Invalid Simple-Condition")
		}
		for field, value := range simple {
			p.conditions = append(p.conditions, condition{"eq", strings.ToLower(field), []string{value}, string(raw)})
		}
		return nil
	}
	var list []json.RawMessage
	var operator string
	switch {
	case json.Unmarshal(raw, &list) != nil:
		return invalid("0006-00000222", "Condition that is neither a map nor a list")
	case len(list) < 3:
		return invalid("0006-00000216", "No matching mode")
	case len(list) > 3:
		return invalid("0006-00000218", "Invalid condition")
	case json.Unmarshal(list[0], &operator) != nil:
		return invalid("0006-00000224", "Invalid operator")
	}
	operator = strings.ToLower(operator)
	if operator == "content-length-range" {
		var a, b int64
		switch {
		case json.Unmarshal(list[1], &a) != nil || a < 0:
			return invalid("0006-00000223", "Invalid minimum of content-length-range")
		case json.Unmarshal(list[2], &b) != nil || b < 0:
			return invalid("0006-00000221", "Invalid maximum of content-length-range")
		case b < a:
			return invalid("0006-00000219", "Invalid content-length-range: the maximum is less than the minimum")
		}
		p.minSize, p.maxSize = max(p.minSize, a), min(p.maxSize, b)
		return nil
	}
	var field string
	if json.Unmarshal(list[1], &field) != nil || !strings.HasPrefix(field, "$") {
		return invalid("", "Invalid field")
	}
	c := condition{operator: operator, field: strings.ToLower(field[1:]), source: string(raw)}
	switch operator {
	case "eq", "starts-with":
		var value string
		if json.Unmarshal(list[2], &value) != nil {
			return invalid("0006-00000224", "Invalid value")
		}
		c.values = []string{value}
	case "in", "not-in":
		if json.Unmarshal(list[2], &c.values) != nil || len(c.values) == 0 {
			return invalid("0006-00000224", "Invalid list of values")
		}
	default:
		return invalid("", "Unknown operator")
	}
	p.conditions = append(p.conditions, c)
	return nil
}

// check compares a form with the policy. A field that no condition names is free, the
// callback among them, as with OSS.
func (p policy) check(bucket string, form formFields, now time.Time) error {
	if !now.Before(p.expiration) {
		return errAccessDenied.saying("Invalid according to Policy: Policy expired.", "0006-00000213")
	}
	for _, c := range p.conditions {
		value := form.get(c.field)
		if c.field == "bucket" {
			value = bucket
		}
		if !c.holds(value) {
			return errAccessDenied.saying("Invalid according to Policy: Policy Condition failed: "+c.source, "0006-00000227")
		}
	}
	return nil
}

func (c condition) holds(value string) bool {
	if c.operator == "starts-with" {
		return strings.HasPrefix(value, c.values[0])
	}
	return slices.Contains(c.values, value) == (c.operator != "not-in")
}

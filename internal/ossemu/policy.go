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

// parsePolicy reads the Base64 of a policy document. Unknown operators are refused: an
// unread condition would be a bound that does not hold.
func parsePolicy(encoded string) (policy, error) {
	invalid := func(format string, args ...any) (policy, error) {
		return policy{}, errPolicyDocument.saying("Invalid Policy: "+fmt.Sprintf(format, args...), "")
	}
	if len(encoded) > maxPolicy {
		return invalid("larger than %d bytes.", maxPolicy)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return invalid("not Base64.")
	}
	var doc struct {
		Expiration string            `json:"expiration"`
		Conditions []json.RawMessage `json:"conditions"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return invalid("Invalid JSON.")
	}
	p := policy{maxSize: math.MaxInt64}
	if p.expiration, err = time.Parse(time.RFC3339, doc.Expiration); err != nil {
		return invalid("Invalid expiration.")
	}
	if len(doc.Conditions) == 0 {
		return invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
	}
	for _, raw := range doc.Conditions {
		if err := p.add(raw); err != nil {
			return invalid("%s in %s.", err, raw)
		}
	}
	return p, nil
}

func (p *policy) add(raw json.RawMessage) error {
	raw = bytes.TrimSpace(raw)
	if bytes.HasPrefix(raw, []byte("{")) {
		var simple map[string]string
		if err := json.Unmarshal(raw, &simple); err != nil || len(simple) != 1 {
			return fmt.Errorf("Invalid Simple-Condition")
		}
		for field, value := range simple {
			p.conditions = append(p.conditions, condition{"eq", strings.ToLower(field), []string{value}, string(raw)})
		}
		return nil
	}
	var list []json.RawMessage
	var operator string
	if json.Unmarshal(raw, &list) != nil || len(list) != 3 || json.Unmarshal(list[0], &operator) != nil {
		return fmt.Errorf("Invalid condition")
	}
	operator = strings.ToLower(operator)
	if operator == "content-length-range" {
		return p.addRange(list[1], list[2])
	}
	var field string
	if json.Unmarshal(list[1], &field) != nil || !strings.HasPrefix(field, "$") {
		return fmt.Errorf("Invalid field")
	}
	c := condition{operator: operator, field: strings.ToLower(field[1:]), source: string(raw)}
	switch operator {
	case "eq", "starts-with":
		var value string
		if json.Unmarshal(list[2], &value) != nil {
			return fmt.Errorf("Invalid value")
		}
		c.values = []string{value}
	case "in", "not-in":
		if json.Unmarshal(list[2], &c.values) != nil || len(c.values) == 0 {
			return fmt.Errorf("Invalid list of values")
		}
	default:
		return fmt.Errorf("Unknown operator")
	}
	p.conditions = append(p.conditions, c)
	return nil
}

func (p *policy) addRange(least, most json.RawMessage) error {
	var a, b int64
	if json.Unmarshal(least, &a) != nil || json.Unmarshal(most, &b) != nil || a < 0 || b < a {
		return fmt.Errorf("Invalid content-length-range")
	}
	p.minSize, p.maxSize = max(p.minSize, a), min(p.maxSize, b)
	return nil
}

// check compares a form with the policy. A field that no condition names is free, the
// callback among them, as with OSS.
func (p policy) check(bucket string, form formFields, now time.Time) error {
	if !now.Before(p.expiration) {
		return errAccessDenied.saying("Invalid according to Policy: Policy expired.", "")
	}
	for _, c := range p.conditions {
		value := form.get(c.field)
		if c.field == "bucket" {
			value = bucket
		}
		if !c.holds(value) {
			return errAccessDenied.saying("Invalid according to Policy: Policy Condition failed: "+c.source, "")
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

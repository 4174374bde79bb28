package callbackspec

import (
	"encoding/json"
	"net/url"
	"strings"
)

// AddQuery adds the names and values in the query of a request target to the variables, as
// text; several values of one name become an array. They are never system variables, whatever
// their names, and a field of the body keeps its name.
func (c *Callback) AddQuery(target string) {
	_, query, _ := strings.Cut(target, "?")
	if query == "" {
		return
	}
	values := make(map[string][]string)
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name = queryText(name)
		_, taken := c.Vars[name]
		// A token is good for further callbacks until it expires, so it is not kept.
		if pair != "" && !taken && name != TokenField {
			values[name] = append(values[name], queryText(value))
		}
	}
	for name, all := range values {
		if c.Vars == nil {
			c.Vars = make(map[string]json.RawMessage, len(values))
		}
		if c.Vars[name] = quote(all[0]); len(all) > 1 {
			c.Vars[name] = marshal(all)
		}
	}
}

// queryText returns what a part of a query stands for, or the part itself if that is not text.
func queryText(part string) string {
	if text, err := url.QueryUnescape(part); err == nil && Storable(text) {
		return text
	}
	return strings.ToValidUTF8(strings.ReplaceAll(part, "\x00", ""), "\uFFFD")
}

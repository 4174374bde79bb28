package reply

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"
)

// FuzzParse holds that what passes is an object, is part of what came, and makes our answer
// JSON, whether it is a member of it or the whole.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"{}", " {\"a\":[1e9,null,\"\\ud800\"]}\n", "[]", "{}{}", "{\"a\":\"\xff\"}", "\ufeff{}", "{\"a\":1,\"a\":2}", "", "{"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		object, err := parse(text)
		if err != nil {
			if object != nil || !errors.Is(err, errInvalid) && !errors.Is(err, errTooLarge) {
				t.Errorf("%v: %q", err, object)
			}
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(object, &members); err != nil || members == nil || !utf8.Valid(object) || len(object) > maxReply {
			t.Errorf("%v: %q", err, object)
		}
		if !bytes.Contains(text, object) {
			t.Errorf("%q is not in %q", object, text)
		}
		var whole struct{ Reply map[string]json.RawMessage }
		if err := json.Unmarshal(append(append([]byte(`{"status":"ok","reply":`), object...), '}'), &whole); err != nil || whole.Reply == nil {
			t.Errorf("%v: as a member: %q", err, object)
		}
	})
}

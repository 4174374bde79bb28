package callbackspec_test

import (
	"encoding/json"
	"testing"

	spec "upcall/internal/callbackspec"
)

func TestAddQuery(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"/cb":                              `{"uid":"42"}`,
		"/cb?":                             `{"uid":"42"}`,
		"/cb?&&":                           `{"uid":"42"}`,
		"/cb?id=1&index=2":                 `{"id":"1","index":"2","uid":"42"}`,
		"/cb?a=%2Fx+y&b=c=d&%62%c3%bc=?&f": `{"a":"/x y","b":"c=d","bü":"?","f":"","uid":"42"}`,
		"/cb?t[]=1&t[]=2&t%5B%5D=":         `{"t[]":["1","2",""],"uid":"42"}`,
		"/cb?uid=7&=x":                     `{"":"x","uid":"42"}`,
		"/cb?bucket=b&object=o&size=9":     `{"bucket":"b","object":"o","size":"9","uid":"42"}`,
		"/cb?upcall_token=k1.x&upcall%5Ftoken=y&a=1": `{"a":"1","uid":"42"}`,
		"/cb?a=%zz&b=%ff&c=%00&d=\xff":               `{"a":"%zz","b":"%ff","c":"%00","d":"�","uid":"42"}`,
	} {
		c := spec.Callback{Vars: rawVars{"uid": raw(`"42"`)}}
		c.AddQuery(target)
		if vars, err := json.Marshal(c.Vars); err != nil || string(vars) != want {
			t.Errorf("%s: %s, want %s (%v)", target, vars, want, err)
		}
		if diff := diffCallback(spec.Callback{Vars: c.Vars}, c); diff != "" {
			t.Errorf("%s becomes a system field: %s", target, diff)
		}
	}
}

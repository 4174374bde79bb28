package issue_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
)

func TestIssueRejections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*issue.Request)
		rules  []error
	}{
		{"no bucket and no key", func(r *issue.Request) { r.Object.Bucket, r.Object.Key = "", "" }, []error{ossrule.ErrBucket, ossrule.ErrKey}},
		{"no expiry", func(r *issue.Request) { r.Expires = 0 }, []error{oss.ErrExpires}},
		{"expiry no token can hold", func(r *issue.Request) { r.Expires = 1<<63 - 1 }, []error{oss.ErrExpires}},
		{"no URL", func(r *issue.Request) { r.Callback.URLs = nil }, []error{callbackspec.ErrNoURL}},
		{"six URLs", func(r *issue.Request) { r.Callback.URLs = slices.Repeat(r.Callback.URLs, 6) }, []error{callbackspec.ErrURLCount}},
		{"private URL", func(r *issue.Request) { r.Callback.URLs = []string{"http://10.0.0.1/cb"} }, []error{callbackspec.ErrPrivateAddress}},
		{"localhost", func(r *issue.Request) { r.Callback.URLs = []string{"http://localhost:8080/"} }, []error{callbackspec.ErrPrivateAddress}},
		{"IPv6", func(r *issue.Request) { r.Callback.URLs = []string{"http://[2001:db8::1]/cb"} }, []error{callbackspec.ErrIPv6}},
		{"port", func(r *issue.Request) { r.Callback.URLs = []string{"http://example.com:http/cb"} }, []error{callbackspec.ErrPort}},
		{"host", func(r *issue.Request) { r.Callback.Host = "a b" }, []error{callbackspec.ErrHost}},
		{"body type", func(r *issue.Request) { r.Callback.BodyType = "text/plain" }, []error{callbackspec.ErrBodyType}},
		{"lone dollar", func(r *issue.Request) { r.Callback.Body = "a=$b" }, []error{callbackspec.ErrTemplate}},
		{"variable missing from the template", func(r *issue.Request) { r.Callback.Body = "u=${x:uid}" }, []error{callbackspec.ErrTemplate}},
		{"variable without a value", func(r *issue.Request) { r.Callback.Body = "u=${x:uid}&a=${x:album}&b=${x:b}" },
			[]error{callbackspec.ErrTemplate}},
		{"no place for the token", func(r *issue.Request) {
			r.Callback.Body, r.Callback.BodyType = "[${x:uid},${x:album}]", callbackspec.JSON
		}, []error{callbackspec.ErrTemplate}},
		{"name of a default field", func(r *issue.Request) { r.Callback.Vars = map[string]string{"bucket": "b"} },
			[]error{callbackspec.ErrVarName}},
		{"names of two default fields",
			func(r *issue.Request) { r.Callback.Vars = map[string]string{"etag": "b", "size": "1"} },
			[]error{callbackspec.ErrVarName, callbackspec.ErrVarName}},
		{"name of a default field in capitals",
			func(r *issue.Request) { r.Callback.Vars = map[string]string{"mimeType": "b"} },
			[]error{callbackspec.ErrVarName}},
		{"name of the token", func(r *issue.Request) { r.Callback.Vars = map[string]string{"upcall_token": "b"} }, []error{issue.ErrReserved}},
		{"name of the token in a template", func(r *issue.Request) {
			r.Callback.Vars, r.Callback.Body = map[string]string{"upcall_token": "b"}, "t=${x:upcall_token}"
		}, []error{issue.ErrReserved}},
		{"name in capitals", func(r *issue.Request) { r.Callback.Vars = map[string]string{"UID": "42"} }, []error{callbackspec.ErrVarName}},
		{"empty name", func(r *issue.Request) { r.Callback.Vars = map[string]string{"": "42"} }, []error{callbackspec.ErrVarName}},
		{"value that is not text", func(r *issue.Request) { r.Callback.Vars = map[string]string{"uid": "\x00"} },
			[]error{callbackspec.ErrVarValue}},
		{"variables over 5 KB",
			func(r *issue.Request) { r.Callback.Vars = map[string]string{"uid": strings.Repeat("4", 4000)} },
			[]error{callbackspec.ErrTooLarge}},
		{"template over 5 KB", func(r *issue.Request) {
			r.Callback.Vars, r.Callback.Body = nil, "a="+strings.Repeat("4", 4000)
		}, []error{callbackspec.ErrTooLarge}},
		{"all at once", func(r *issue.Request) {
			r.Object.Bucket, r.Expires, r.ContentMD5 = "B", 0, "?"
			r.Callback = &issue.CallbackSpec{URLs: []string{"ftp://x.example.com", "http://10.0.0.1"},
				Vars: map[string]string{"A": "1", "etag": "2"}, BodyType: "x"}
		}, []error{ossrule.ErrBucket, oss.ErrExpires, oss.ErrContentMD5, callbackspec.ErrVarName,
			callbackspec.ErrURL, callbackspec.ErrPrivateAddress, callbackspec.ErrBodyType, callbackspec.ErrVarName}},
	}
	issuer := newIssuer(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := goodRequest()
			tt.change(&r)
			upload, _, err := issuer.Issue(t.Context(), r)
			if err == nil || upload.URL != "" {
				t.Fatalf("issued %s", upload.URL)
			}
			mistakes := fault.Of(err)
			if len(mistakes) != len(tt.rules) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(mistakes), len(tt.rules), err)
			}
			for i, mistake := range mistakes {
				if mistake.Field == "" || !errors.Is(mistake, tt.rules[i]) {
					t.Errorf("mistake %v, want the rule %v", mistake, tt.rules[i])
				}
			}
			if checked := r.Check(callbackspec.PublicHosts, true); checked == nil || checked.Error() != err.Error() {
				t.Errorf("Check says\n%v\nand Issue says\n%v", checked, err)
			}
		})
	}
}

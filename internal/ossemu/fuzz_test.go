package ossemu

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzQuery: what parses is signed as one canonical text, which means the same again.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "a=1&b", "callback=e30%3D&callback-var=e30=", "a+b=%2B", "a=%",
		"a=1&a=2", "%zz", "=x", "&&", "x-oss-signature=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			return
		}
		delete(q, "x-oss-signature")
		again, err := parseQuery(q.canonical())
		if _, empty := q[""]; empty {
			return // "=x" has no spelling without "="
		}
		if err != nil || !maps.Equal(q, again) {
			t.Fatalf("%q is %v, its canonical form %q is %v (%v)", raw, q, q.canonical(), again, err)
		}
	})
}

// FuzzAuthorization: a header is either refused or well-formed.
func FuzzAuthorization(f *testing.F) {
	signature := strings.Repeat("0", 64)
	for _, seed := range []string{
		algorithmV4 + " Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,Signature=" + signature,
		algorithmV4 + " Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,AdditionalHeaders=abc;zabc,Signature=" + signature,
		algorithmV4, algorithmV4 + " ,,,", "OSS ak:sig", "", algorithmV4 + " Signature=,Signature=",
		algorithmV4 + " Credential=////,Signature=" + signature,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		a, err := parseHeaderAuthorization(http.Header{"Authorization": {value}, "X-Oss-Date": {"20231216T162057Z"}})
		if err != nil {
			if e := asAPIError(err); e == errInternal {
				t.Fatalf("%q: not an answer: %v", value, err)
			}
			return
		}
		if !isSignature(a.signature) || a.accessKeyID == "" || strings.Count(a.scope(), "/") != 3 {
			t.Fatalf("%q became %+v", value, a)
		}
	})
}

// FuzzPolicy: a policy that parses never lets a form through after its expiration, and
// never panics on one.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{
		`{"expiration":"2030-01-01T00:00:00Z","conditions":[{"bucket":"demo"}]}`,
		`{"expiration":"2030-01-01T00:00:00.000Z","conditions":[["eq","$key","k"],["starts-with","$a",""],["content-length-range",1,10],` +
			`["in","$b",["x"]],["not-in","$c",["y"]]]}`,
		`{"expiration":"2030-01-01T00:00:00Z","conditions":[[]]}`,
		`{"expiration":"2030-01-01T00:00:00Z","conditions":[["eq","$"]]}`, `{}`, `[]`, `null`, ``,
		`{"expiration":"2030-01-01T00:00:00Z","conditions":[["content-length-range",-1,9223372036854775808]]}`, `{"conditions":[null]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, document string) {
		p, err := parsePolicy(base64.StdEncoding.EncodeToString([]byte(document)))
		if err != nil {
			if e := asAPIError(err); e != errInternal && e.code != "InvalidPolicyDocument" {
				t.Fatalf("%q: %v", document, err)
			}
			return
		}
		if len(p.conditions) == 0 && p.minSize == 0 && p.maxSize < 0 {
			t.Fatalf("%q has no bounds", document)
		}
		if p.check("demo", formFields{"key": "k"}, p.expiration) == nil {
			t.Fatalf("%q holds at its expiration", document)
		}
		_ = p.check("demo", formFields{"key": "k"}, p.expiration.Add(-time.Second))
	})
}

// FuzzForm: no form panics, and a form that is read has a file.
func FuzzForm(f *testing.F) {
	f.Add("--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nx\r\n--b--\r\n")
	f.Add("--b--\r\n")
	f.Add("--b\r\n\r\n\r\n--b--")
	f.Fuzz(func(t *testing.T, body string) {
		form, file, err := readForm(multipart.NewReader(strings.NewReader(body), "b"))
		if err == nil && (form == nil || file == nil) {
			t.Fatalf("%q: no file and no error", body)
		}
		if err != nil && asAPIError(err) == errInternal {
			t.Fatalf("%q: not an answer: %v", body, err)
		}
	})
}

// FuzzFaults: what is accepted is shown as a document that means the same.
func FuzzFaults(f *testing.F) {
	f.Add(`{"drop":true,"delay":"3s","duplicate":2,"concurrent":true}`)
	f.Add(`{"space_as":"+","hex_case":"lower","path_plus":"space","path_escapes":"raw","count":3}`)
	f.Add(`{"foreign_key_url":"http://x/y"}`)
	f.Fuzz(func(t *testing.T, document string) {
		faults, err := parseFaults([]byte(document))
		if err != nil {
			return
		}
		shown, err := json.Marshal(faults)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseFaults(shown); err != nil || again != faults {
			t.Fatalf("%q became %s: %v", document, shown, err)
		}
	})
}

// FuzzPolicyHolds: a policy is either refused with an answer of OSS, or limits the form: every condition in it is one that is
// checked, so that none is passed over because it was not understood.
func FuzzPolicyHolds(f *testing.F) {
	for _, seed := range []string{
		`{"expiration":"2026-11-28T00:00:00.000Z","conditions":[{"bucket":"demo"},["eq","$key","a"],["content-length-range",0,5]]}`,
		`{"expiration":"2026-11-28T00:00:00Z","conditions":[["starts-with","$key","a/"],["in","$content-type",["a","b"]]]}`,
		`{"expiration":"2026-11-28T00:00:00Z","conditions":[["not-in","$cache-control",["no-cache"]],["EQ","$X:Var","1"]]}`,
		`{"expiration":"2026-11-28T00:00:00Z","conditions":[["eq","$key"]]}`, `{"expiration":1,"conditions":2}`, `[]`, `{}`, `{"conditions":[[]]}`,
		`{"expiration":"2026-11-28T00:00:00Z","conditions":[["content-length-range",9223372036854775807,0]]}`,
		`{"expiration":"2026-11-28T00:00:00Z","conditions":[["content-length-range",-1,"5"],{"a":"b","c":"d"},{"a":1},3,null]}`,
	} {
		f.Add(seed)
	}
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, document string) {
		p, err := parsePolicy(base64.StdEncoding.EncodeToString([]byte(document)))
		if err != nil {
			if e := asAPIError(err); e == errInternal {
				t.Fatalf("%q: not an answer: %v", document, err)
			}
			return
		}
		var read struct{ Conditions []json.RawMessage }
		if err := json.Unmarshal([]byte(document), &read); err != nil || len(read.Conditions) < len(p.conditions) {
			t.Fatalf("%q has %d conditions, and %d were read (%v)", document, len(read.Conditions), len(p.conditions), err)
		}
		if p.minSize < 0 {
			t.Fatalf("%q: at least %d bytes", document, p.minSize)
		}
		// What no form can have is refused, unless a condition is about what must not be.
		form := formFields{}
		for _, c := range p.conditions {
			if c.operator != "not-in" {
				form[c.field] = "\x00 is in no condition" + document
			}
		}
		if err := p.check("\x00 is in no condition"+document, form, now); err == nil && len(form) > 0 {
			for _, c := range p.conditions {
				if c.operator != "not-in" && !(c.operator == "starts-with" && c.values[0] == "") {
					t.Fatalf("%q: a form that says something else is accepted", document)
				}
			}
		}
	})
}

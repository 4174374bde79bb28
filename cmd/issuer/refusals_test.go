package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestBadInput sets every flag and variable wrongly. It checks that one line says so, that
// the status is 2, and that there is no standard output.
func TestBadInput(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string // after good
		env  map[string]string
		want []string // a part of each line
	}{
		{"unknown flag", []string{"--nonsense"}, nil, []string{"unknown flag --nonsense; see issuer put --help"}},
		{"stray word", []string{"cat.jpg"}, nil, []string{"unexpected argument cat.jpg"}},
		{"flag without its value", []string{"--bucket"}, nil, []string{"--bucket"}},
		{"switch that is not a boolean", nil, map[string]string{"UPCALL_INTERNAL": "maybe"}, []string{"--internal"}},

		{"bucket", []string{"--bucket", "Demo"}, nil, []string{"bucket:"}},
		{"bucket empty", []string{"--bucket="}, nil, []string{"bucket: is empty"}},
		{"key", []string{"--key", "/cat.jpg"}, nil, []string{"key:"}},
		{"key empty", []string{"--key="}, nil, []string{"key: is empty"}},
		{"region", []string{"--region", "oss-cn-hangzhou"}, nil, []string{"give cn-hangzhou"}},
		{"region by variable", nil, map[string]string{"OSS_REGION": "oss-cn-hangzhou"}, []string{"give cn-hangzhou"}},
		{"region missing", nil, map[string]string{"OSS_REGION": ""}, []string{"region: is empty"}},
		{"endpoint", []string{"--endpoint", "ftp://x"}, nil, []string{"endpoint:"}},
		{"endpoint in another region", []string{"--endpoint", "oss-cn-beijing.aliyuncs.com"}, nil, []string{"region cn-beijing"}},
		{"internal with endpoint", []string{"--internal", "--endpoint", "oss-cn-hangzhou.aliyuncs.com"}, nil, []string{"internal:"}},
		{"accelerate with internal", []string{"--accelerate", "--internal"}, nil, []string{"choose one"}},
		{"cname alone", []string{"--cname"}, nil, []string{"cname:"}},
		{"path style at OSS", []string{"--path-style"}, nil, []string{"path-style:"}},

		{"expires in words", []string{"--expires", "soon"}, nil, []string{`--expires: "soon" is not a duration; write 90s, 15m, 1h or 7d`}},
		{"expires without a unit", []string{"--expires", "3600"}, nil, []string{"--expires:"}},
		{"expires empty", []string{"--expires="}, nil, []string{"--expires:"}},
		{"expires 0", []string{"--expires", "0s"}, nil, []string{`--expires: "0s" is not a positive duration`}},
		{"expires 8d", []string{"--expires", "8d"}, nil, []string{"1s to 7d"}},
		{"expires a century", []string{"--expires", "65535d"}, nil, []string{"1s to 7d"}},
		{"expires -1h", []string{"--expires=-1h"}, nil, []string{"not a positive duration"}},
		{"expires 1.5s", []string{"--expires", "1.5s"}, nil, []string{"whole seconds"}},
		{"expires by variable", nil, map[string]string{"UPCALL_EXPIRES": "1y"}, []string{"--expires:"}},

		{"callback URL private", []string{"--callback-url", "http://192.168.0.1/cb"}, nil, []string{"192.168.0.1"}},
		{"callback URL empty", []string{"--callback-url="}, nil, []string{"callbackUrl:"}},
		{"callback URL six times", slices.Repeat([]string{"--callback-url", "https://b.example.com/"}, 5), nil, []string{"6 URLs"}},
		{"callback URLs by variable", nil, map[string]string{"UPCALL_CALLBACK_URL": "x"}, nil}, // the flag wins
		{"callback host", []string{"--callback-host", "a b"}, nil, []string{"callbackHost:"}},
		{"callback body", []string{"--callback-body", "a=$b"}, nil, []string{"callbackBody:"}},
		{"callback body that is not JSON", []string{"--callback-body", "[${bucket}]", "--callback-body-type", "json"}, nil,
			[]string{"callbackBody:"}},
		{"callback body percent-encoded", []string{"--callback-body", "bucket=%24%7Bbucket%7D&object=%24%7Bobject%7D"}, nil,
			[]string{"callbackBody: holds the text of the variable ${bucket}: the template was percent-encoded before OSS saw it"}},
		{"callback body percent-encoded as a whole",
			[]string{"--callback-body", "%7B%22bucket%22%3A%24%7Bbucket%7D%7D", "--callback-body-type", "json"}, nil,
			[]string{"the template was percent-encoded before OSS saw it"}},
		{"callback body with a bad size", []string{"--callback-body", "size=${size}B"}, nil,
			[]string{"callbackBody: makes a body that cannot be read"}},
		{"callback body JSON without its type", []string{"--callback-body", `{"object":${object}}`}, nil,
			[]string{"the template is JSON, but callbackBodyType is not; use json"}},
		{"callback body with escaped quotes",
			[]string{"--callback-body", `{\"size\":${size}}`, "--callback-body-type", "json"}, nil, []string{"write them plain"}},
		{"callback body that is cut off", []string{"--callback-body", `{"size":${size}`, "--callback-body-type", "json"}, nil,
			[]string{"and the template with }"}},
		{"callback body over several lines", []string{"--callback-body", "bucket=${bucket}&\nsize=${size}\n"}, nil, nil},
		{"callback body type", []string{"--callback-body-type", "xml"}, nil,
			[]string{`--callback-body-type: "xml" is unknown; use form or json`}},
		{"callback body type, with a JSON body", []string{"--callback-body-type", "xml", "--callback-body", `{"bucket":${bucket}}`}, nil,
			[]string{`--callback-body-type: "xml" is unknown; use form or json`}},
		{"callback body type as OSS writes it",
			[]string{"--callback-body-type", "application/json", "--callback-body", `{"bucket":${bucket}}`}, nil, nil},
		{"callback body type in capitals",
			[]string{"--callback-body-type", "JSON", "--callback-body", `{"bucket":${bucket}}`}, nil, nil},
		{"callback body type of a form as OSS writes it",
			[]string{"--callback-body-type", "application/x-www-form-urlencoded", "--callback-body", "b=${bucket}"}, nil, nil},
		{"var without value", []string{"--var", "uid"}, nil, []string{`--var: "uid" is not name=value`}},
		{"var without name", []string{"--var", "=42"}, nil, []string{`--var: "=42" is not name=value`}},
		{"var twice", []string{"--var", "uid=1", "--var", "uid=2"}, nil, []string{`--var: "uid" is given twice`}},
		{"var twice, once with x:", []string{"--var", "x:uid=1", "--var", "uid=2"}, nil, []string{`--var: "uid" is given twice`}},
		{"var as OSS writes it", []string{"--var", "x:uid=1", "--callback-body", "v=${x:uid}"}, nil, nil},
		{"var with the token's name as OSS writes it", []string{"--var", "x:upcall_token=1"}, nil, []string{"x:upcall_token:"}},
		{"var in capitals", []string{"--var", "UID=1"}, nil, []string{"x:UID:"}},
		{"var with a default field's name", []string{"--var", "etag=1"}, nil, []string{"x:etag:"}},
		{"var with the token's name", []string{"--var", "upcall_token=1"}, nil, []string{"x:upcall_token:"}},
		{"var not in the template", []string{"--var", "uid=1", "--callback-body", "b=${bucket}"}, nil, []string{"x:uid:"}},
		{"carry", []string{"--carry", "pigeon"}, nil, []string{`--carry: "pigeon" is unknown; use header or query`}},

		{"content type", []string{"--content-type", "image"}, nil, []string{"content-type:"}},
		{"content length in words", []string{"--content-length", "1MB"}, nil, []string{"--content-length:"}},
		{"content length negative", []string{"--content-length=-1"}, nil, []string{"content-length:"}},
		{"content length beyond int64", []string{"--content-length", "9223372036854775808"}, nil, []string{"--content-length:"}},
		{"content MD5", []string{"--content-md5", "abc"}, nil, []string{"content-md5:"}},
		{"storage class", []string{"--storage-class", "standard"}, nil, []string{"storage-class:"}},
		{"acl", []string{"--acl", "public"}, nil, []string{"acl:"}},
		{"meta", []string{"--meta", "name"}, nil, []string{"--meta:"}},
		{"meta name", []string{"--meta", "a_b=c"}, nil, []string{"meta a_b:"}},
		{"tag", []string{"--tag", "name"}, nil, []string{"--tag:"}},
		{"tag value", []string{"--tag", "name=a&b"}, nil, []string{"tag name:"}},
		{"header", []string{"--header", "Cache-Control: no-cache"}, nil, []string{"--header:"}},
		{"header name", []string{"--header", "X-Custom=1"}, nil, []string{"header X-Custom:"}},
		{"header of the signature", []string{"--header", "x-oss-date=1"}, nil, []string{"header x-oss-date:"}},
		{"format", []string{"--format", "yaml"}, nil, []string{`--format: "yaml" is unknown; use text or json or curl`}},
		{"browser without a content type", []string{"--format", "browser"}, nil,
			[]string{"--content-type: is empty, but a program for browser always sends one"}},
		{"android without a content type", []string{"--format", "android"}, nil,
			[]string{"--content-type: is empty, but a program for android always sends one"}},
		{"dots that the language would resolve",
			[]string{"--format", "browser", "--key", "a/../b", "--content-type", "image/png"}, nil,
			[]string{"--format: a program for browser cannot send"}},

		{"no access key id", nil, map[string]string{"OSS_ACCESS_KEY_ID": ""}, []string{"OSS_ACCESS_KEY_ID"}},
		{"no access key secret", nil, map[string]string{"OSS_ACCESS_KEY_SECRET": ""}, []string{"OSS_ACCESS_KEY_SECRET"}},
		{"secret with a line break", nil, map[string]string{"OSS_ACCESS_KEY_SECRET": "hunter\n2"}, []string{"access key secret:"}},
		{"secret twice", nil, map[string]string{"OSS_ACCESS_KEY_SECRET_FILE": "/dev/null"}, []string{"OSS_ACCESS_KEY_SECRET_FILE"}},
		{"secret file missing", nil,
			map[string]string{"OSS_ACCESS_KEY_SECRET": "", "OSS_ACCESS_KEY_SECRET_FILE": "/nonexistent"},
			[]string{"OSS_ACCESS_KEY_SECRET_FILE"}},
		{"id file missing", nil, map[string]string{"OSS_ACCESS_KEY_ID": "", "OSS_ACCESS_KEY_ID_FILE": "/nonexistent"},
			[]string{"OSS_ACCESS_KEY_ID_FILE"}},
		{"session token file empty", nil, map[string]string{"OSS_SESSION_TOKEN_FILE": "/dev/null"}, []string{"OSS_SESSION_TOKEN_FILE"}},
		{"token keys", nil, map[string]string{"UPCALL_TOKEN_KEYS": "hunter2"}, []string{"UPCALL_TOKEN_KEYS: key 1"}},
		{"two bad token keys", nil, map[string]string{"UPCALL_TOKEN_KEYS": "hunter2,K2:hunter2"},
			[]string{"UPCALL_TOKEN_KEYS: key 1", "UPCALL_TOKEN_KEYS: key 2"}},
		{"token keys file missing", nil,
			map[string]string{"UPCALL_TOKEN_KEYS": "", "UPCALL_TOKEN_KEYS_FILE": "/nonexistent"},
			[]string{"UPCALL_TOKEN_KEYS_FILE"}},

		{"all at once", []string{"--bucket", "B", "--expires", "soon", "--content-length", "x", "--format", "yaml", "--carry", "x", "--var", "y"},
			map[string]string{"OSS_REGION": "", "OSS_ACCESS_KEY_ID": "", "UPCALL_TOKEN_KEYS": "z"},
			[]string{"region:", "access key id:", "UPCALL_TOKEN_KEYS:", "--expires:", "--content-length:", "--var:", "--carry:",
				"bucket:", "--format:"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := goodEnv()
			maps.Copy(env, tt.env)
			stdout, stderr, status := execute(t, env, slices.Concat(good, tt.args)...)
			if tt.want == nil {
				if status != 0 {
					t.Errorf("status %d: %s", status, stderr)
				}
				return
			}
			refused(t, tt.want, stdout, stderr, status)
		})
	}
}

// TestNoCallback checks that settings of a callback are rejected without a callback, because
// they would silently do nothing.
func TestNoCallback(t *testing.T) {
	t.Parallel()
	plain := []string{"put", "--bucket", "demo", "--key", "cat.jpg"}
	for _, args := range [][]string{
		{"--callback-host", "h"}, {"--callback-sni"}, {"--no-callback-sni"}, {"--callback-body", "a=b"}, {"--var", "uid=1"},
	} {
		_, stderr, status := execute(t, goodEnv(), slices.Concat(plain, args)...)
		if status != 2 || !strings.Contains(stderr, "give --callback-url") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
	u := executeJSON(t, goodEnv(), plain...)
	if u.Callback != nil || u.CallbackVar != nil || len(u.Headers) != 0 {
		t.Errorf("a plain upload has %+v", u)
	}
	stdout, stderr, status := execute(t, goodEnv(), plain...)
	if status != 0 || stderr != contentTypeNote || !strings.Contains(stdout, "none, because there is no --callback-url") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
}

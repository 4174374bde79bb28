package main

import (
	"encoding/json"
	"strings"
	"testing"

	"upcall/internal/manifest"
)

var goodForm = []string{"form", "--bucket", "demo", "--key-prefix", "photos/", "--max-size", "5", "--var", "uid=4'2",
	"--callback-url", "https://uploads.example.com/oss/callback"}

func TestForm(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := execute(t, goodEnv(), append(goodForm, "--format", "json")...)
	var form manifest.Form
	if err := json.Unmarshal([]byte(stdout), &form); err != nil || status != 0 || stderr != "" {
		t.Fatalf("%d %s: %v in %s", status, stderr, err, stdout)
	}
	if form.URL != "https://demo.oss-cn-hangzhou.aliyuncs.com/" || form.KeyPrefix != "photos/" || form.Key != "" || form.MaxSize != 5 ||
		form.Fields["key"] != "photos/${filename}" || form.Fields["x:uid"] != "4'2" || form.Fields["x:upcall_token"] == "" ||
		!strings.Contains(string(form.CallbackVar), `"x:uid"`) {
		t.Errorf("%+v", form)
	}
	for format, want := range map[string][]string{
		"text": {"Objects   under photos/ in bucket demo\n", "Size      0 to 5 bytes\n", "Callback  https://uploads.example.com/oss/callback\n",
			`--form-string 'x:uid=4'\''2'`, "-F file=@FILE 'https://demo.oss-cn-hangzhou.aliyuncs.com/'\n"},
		"html": {`<form action="https://demo.oss-cn-hangzhou.aliyuncs.com/" method="post" enctype="multipart/form-data">`,
			`name="x:uid" value="4&#39;2"`, `<input type="file" name="file" required>`},
	} {
		stdout, stderr, status := execute(t, goodEnv(), append(goodForm, "--format", format)...)
		for _, part := range want {
			if status != 0 || stderr != "" || !strings.Contains(stdout, part) {
				t.Errorf("%s: %d %s: no %s in %s", format, status, stderr, part, stdout)
			}
		}
	}
	// It is nothing for issuer upload.
	_, stderr, status = feed(t, goodEnv(), stdout, "upload", "--manifest", "-", "form_test.go")
	if status == 0 || !strings.Contains(stderr, "it is a form, which a web page sends") {
		t.Errorf("%d %s", status, stderr)
	}
}

func TestFormRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"a key too":              {[]string{"--key", "a"}, []string{"--key-prefix: is given together with --key; leave one out"}},
		"no limit":               {[]string{"--max-size="}, []string{"--max-size: is missing"}},
		"a limit in words":       {[]string{"--max-size", "5MB"}, []string{`--max-size: "5MB" is not a number of bytes`}},
		"another in words":       {[]string{"--min-size", "x"}, []string{`--min-size: "x" is not a number of bytes`}},
		"limits turned":          {[]string{"--min-size", "6"}, []string{"max-size: 5 is less than the minimum of 6"}},
		"no folder":              {[]string{"--key-prefix", "photos"}, []string{"key-prefix: does not end with a slash; write photos/"}},
		"a tag":                  {[]string{"--tag", "a=1"}, []string{"tag: is not a field of a form"}},
		"in the query":           {[]string{"--carry", "query"}, []string{"carry: is for presigned URLs"}},
		"a template with no key": {[]string{"--callback-body", "bucket=${bucket}&uid=${x:uid}"}, []string{"callbackBody: does not tell the object key"}},
		"a program":              {[]string{"--format", "curl"}, []string{`--format: "curl" is unknown; use text or json or html`}},
		"several at once":        {[]string{"--expires", "8d", "--bucket", "A", "--key-prefix", "/"}, []string{"bucket:", "expires:", "key-prefix:"}},
	} {
		stdout, stderr, status := execute(t, goodEnv(), append(append([]string{}, goodForm...), tt.args...)...)
		if status != 2 || stdout != "" {
			t.Errorf("%s: status %d, %s", name, status, stdout)
		}
		checkLines(t, stderr, tt.want)
	}
}

package doctor

import (
	"bytes"
	"crypto/md5"
	"errors"
	"slices"
	"strings"
	"testing"

	"upcall/internal/testing/vectors"
	"upcall/internal/verify"
)

// TestCurlFiles reads what curl 7.88 wrote, byte by byte where it shows the bytes.
func TestCurlFiles(t *testing.T) {
	t.Parallel()
	const (
		auth = "kKQeGTRccDKyHB3H9vF+xYMSrmhMZjzzl2/kdD1ktNVgbWEfYTQG0G2SU/RaHBovRCE8OkQDjC3uG33esH2txA=="
		long = "bucket=yonghu-test&x=1\r\nsecond line, which is so long that curl breaks it after sixty-four characters\r\n"
	)
	tests := []struct {
		file, auth, body string
		noBody           bool
	}{
		{"curl-verbose.txt", "kKQe", "", true},
		{"curl-trace.txt", "kKQe", "bucket=yonghu-test&x=1\r\nsecond line\n", false},
		{"curl-trace-ascii.txt", auth, long, false},
		{"curl-trace-chunked.txt", "", long, false},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			c, err := Parse(readFile(t, "testdata/"+tt.file), Auto, 0)
			if err != nil {
				t.Fatal(err)
			}
			if c.Format != Curl || c.Method != "POST" || c.Target != "/index.php?id=1&index=2" || c.Get("authorization") != tt.auth {
				t.Errorf("%+v", c)
			}
			if string(c.Body) != tt.body || c.NoBody != tt.noBody {
				t.Errorf("body %q, none %t", c.Body, c.NoBody)
			}
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	const har = `{"log":{"entries":[
		{"request":{"method":"GET","url":"http://h/livez","headers":[]}},
		{"request":{"method":"POST","url":"https://h?x=1#f","headers":[{"name":"Authorization","value":"YQ=="}],
			"postData":{"mimeType":"application/json","text":"e30K","encoding":"base64"}}},
		{"request":{"method":"POST","url":"https://h/p","headers":[{"name":":path","value":"/q?a"},{"name":":method","value":"POST"}],
			"postData":{"mimeType":"","params":[{"name":"a b","value":"c&d"}]}}},
		{"request":{"method":"POST","url":"https://h/p","headers":[]}},
		{"request":{"method":"POST","url":"https://h","headers":[],"bodySize":0}}]}}`
	tests := []struct {
		name, file string
		entry      int
		target     string
		auth, body string
		noBody     bool
		notes      int
	}{
		{"LF lines", "POST /p HTTP/1.1\nAuthorization: YQ==\n\na\r\nb\n", 0, "/p", "YQ==", "a\r\nb\n", false, 1},
		{"byte order mark and empty lines before", "\xef\xbb\xbf\r\n\r\nPOST /p HTTP/1.0\r\n\r\nb", 0, "/p", "", "b", false, 1},
		{"no empty line", "POST /p HTTP/1.1\r\nAuthorization: YQ==", 0, "/p", "YQ==", "", false, 1},
		{"folded signature", "POST /p HTTP/1.1\r\nAuthorization: YQ\r\n ==\r\n\r\n", 0, "/p", "YQ\n==", "", false, 0},
		{"wrapped signature", "POST /p HTTP/1.1\r\nAuthorization: YQAA\r\nYQ==\r\nHost: h\r\n\r\n", 0, "/p", "YQAA\nYQ==", "", false, 0},
		{"blank in the target", "POST /p q HTTP/1.1\r\n\r\n", 0, "/p q", "", "", false, 0},
		{"chunks", "POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 0, "/p", "", "abc", false, 1},
		{"chunks already joined", "POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nabc", 0, "/p", "", "abc", false, 1},
		{"response after the request", "POST /p HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\nHTTP/1.1 200 OK\r\n\r\n", 0, "/p", "", "abc", false, 1},
		{"body that only looks like a response", "POST /p HTTP/1.1\r\nContent-Length: 30\r\n\r\nHTTP/1.1 200 OK\r\n",
			0, "/p", "", "HTTP/1.1 200 OK\r\n", false, 0},
		{"HAR, the callback", har, 0, "/?x=1", "YQ==", "{}\n", false, 1},
		{"HAR, fields only", har, 3, "/q?a", "", "a+b=c%26d", false, 1},
		{"HAR without the body", har, 4, "/p", "", "", true, 0},
		{"HAR, empty body", har, 5, "/", "", "", false, 0},
		{"curl, body pasted", "* Connected to h\n> POST /p HTTP/2\r\n> authorization: YQ==\r\n> \r\na=b\n* done\n< HTTP/2 200\n<\nok",
			0, "/p", "YQ==", "a=b\n", false, 0},
		{"curl, empty body", "> POST /p HTTP/1.1\n> Content-Length: 0\n>\n< HTTP/1.1 200 OK\n", 0, "/p", "", "", false, 0},
		{"curl, two requests", "> GET /p HTTP/1.1\n>\n< HTTP/1.1 200 OK\n> POST /q HTTP/1.1\n> Authorization: YQ==\n> Content-Length: 0\n>\n",
			0, "/q", "YQ==", "", false, 1},
		{"curl, signature wrapped by a terminal", "> POST /p HTTP/1.1\n> Authorization: YQAA\nYQ==\n> Content-Length: 0\n>\n",
			0, "/p", "YQAA\nYQ==", "", false, 0},
		{"trace in ASCII with a dot", "=> Send header, 20 bytes (0x14)\n0000: POST /p HTTP/1.1\n0012: \n=> Send data, 2 bytes (0x2)\n0000: a.\n",
			0, "/p", "", "a.", false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := Parse([]byte(tt.file), Auto, tt.entry)
			if err != nil {
				t.Fatal(err)
			}
			if c.Target != tt.target || c.Get("Authorization") != tt.auth || string(c.Body) != tt.body ||
				c.NoBody != tt.noBody || len(c.Notes) != tt.notes {
				t.Errorf("%+v, body %q", c, c.Body)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, file string
		format     Format
		entry      int
		want       error
	}{
		{"empty", "", Auto, 0, ErrFormat},
		{"prose", "it does not verify", Auto, 0, ErrFormat},
		{"prose as raw", "it does not verify", Raw, 0, ErrFormat},
		{"no method", "/p HTTP/1.1\r\n\r\n", Auto, 0, ErrFormat},
		{"a response", "HTTP/1.1 200 OK\r\n\r\n", Auto, 0, ErrFormat},
		{"no colon", "POST / HTTP/1.1\nHost: h\nwhat is this\n\nbody", Auto, 0, ErrFormat},
		{"blank in a name", "POST / HTTP/1.1\nHo st: h\n\nbody", Auto, 0, ErrFormat},
		{"body without an empty line", "POST / HTTP/1.1\nHost: h\nbucket=demo&a=b", Auto, 0, ErrFormat},
		{"too many lines", "POST / HTTP/1.1\n" + strings.Repeat("a: b\n", 2000), Auto, 0, ErrFormat},
		{"UTF-16", "\xff\xfeP\x00", Auto, 0, ErrFormat},
		{"too large", strings.Repeat("a", MaxFile+1), Auto, 0, ErrFormat},
		{"entry of a single request", "POST / HTTP/1.1\n\n", Auto, 2, ErrEntry},
		{"negative entry", "POST / HTTP/1.1\n\n", Auto, -1, ErrEntry},
		{"JSON", `{"a":1}`, Auto, 0, ErrFormat},
		{"HAR cut short", `{"log":{"entries":[`, Auto, 0, ErrFormat},
		{"no entries", `{"log":{"entries":[]}}`, Auto, 0, ErrFormat},
		{"entry without a request", `{"log":{"entries":[{}]}}`, Auto, 0, ErrFormat},
		{"entry without a URL", `{"log":{"entries":[{"request":{"method":"POST"}}]}}`, Auto, 0, ErrFormat},
		{"method of another type", `{"log":{"entries":[{"request":{"method":1,"url":"/"}}]}}`, Auto, 0, ErrFormat},
		{"broken Base64", `{"request":{"method":"POST","url":"/","postData":{"text":"!","encoding":"base64"}}}`, Auto, 0, ErrFormat},
		{"only a response in curl's output", "< HTTP/1.1 200 OK\n", Curl, 0, ErrFormat},
		{"curl without a request", "*   Trying 127.0.0.1:80...\n* Connected to h\n", Auto, 0, ErrFormat},
		{"header in curl's output without a colon", "> POST / HTTP/1.1\n> Host\n>\n", Auto, 0, ErrFormat},
		{"data without headers", "=> Send data, 1 bytes (0x1)\n0000: 61 a\n", Curl, 0, ErrFormat},
		{"bytes missing in a trace", "=> Send header, 19 bytes (0x13)\n0000: POST / HTTP/1.1\n0013: \n", Auto, 0, ErrFormat},
		{"block that is shorter than announced", "=> Send header, 99 bytes (0x63)\n0000: POST / HTTP/1.1\n0011: \n", Auto, 0, ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tt.file), tt.format, tt.entry)
			if !errors.Is(err, tt.want) {
				t.Errorf("%v", err)
			}
		})
	}
	_, err := Parse([]byte("POST / HTTP/1.1\n\n"), "pcap", 0)
	if err == nil || !strings.Contains(err.Error(), `format "pcap" is unknown`) {
		t.Errorf("an unknown format: %v", err)
	}
}

// TestNoBody: without the body, the report is about the signature only.
func TestNoBody(t *testing.T) {
	t.Parallel()
	v := loadVectors(t)["docs-2015-query"]
	c := v.capture()
	c.Body, c.NoBody = nil, true
	r := examine(t, Config{}, c)
	if r.Verdict != CannotCheck || r.Reason != "no_body" || !strings.Contains(r.Fix, "--body") ||
		r.Signed.MD5 != "5b74fc97cc385b45c6c8b7782d5a2140" {
		t.Errorf("%+v", r)
	}
	checkWritten(t, r)
}

// TestPushOfMNS: a capture of a notification is named as such, because nothing else fits it.
func TestPushOfMNS(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte("POST /oss/notify HTTP/1.1\r\nx-mns-version: 2015-06-06\r\nContent-Length: 2\r\n\r\n{}"), Raw, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := examine(t, Config{}, c)
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "not a callback: docs/notifications.md") {
		t.Errorf("notes %q", notes)
	}
	checkWritten(t, r)
}

func TestMark(t *testing.T) {
	t.Parallel()
	token := "k1." + strings.Repeat("A", 92)
	for text, want := range map[string]string{
		"a b\tc\r\nd":                "a·b␉c␍␊d",
		"\xef\xbb\xbfx":              "<0xEF><0xBB><0xBF>x",
		"\xff文é":                     "<0xFF>文é",
		"\x1b[31m\x7f\u202e":         "<0x1B>[31m<0x7F><0xE2><0x80><0xAE>",
		"·␊":                         "<0xC2><0xB7><0xE2><0x90><0x8A>",
		"a&upcall_token=" + token:    "a&upcall_token=k1.<masked>",
		"t=k1%2e" + token[3:] + "&b": "t=k1%2e<masked>&b",
		`{"t":"` + token + `"}`:      `{"t":"k1.<masked>"}`,
	} {
		if got := Mark(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	got := shorten(strings.Repeat("a", 50)+strings.Repeat("文", 50), 30)
	if !strings.HasPrefix(got, strings.Repeat("a", 20)+" … 70 ") || !strings.HasSuffix(got, "文文") {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range loadVectors(f) {
		c := v.capture()
		f.Add(writeRaw(c), string(Auto))
		f.Add(writeTrace(c), string(Curl))
		f.Add(writeHAR(f, c), string(HAR))
	}
	for _, name := range []string{"curl-verbose.txt", "curl-trace.txt", "curl-trace-ascii.txt", "curl-trace-chunked.txt"} {
		f.Add(readFile(f, "testdata/"+name), string(Auto))
	}
	f.Fuzz(func(t *testing.T, file []byte, format string) {
		c, err := Parse(file, Format(format), 0)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("error with several lines: %q", err)
			}
			return
		}
		if c.Method == "" || c.Format != Raw && c.Format != Curl && c.Format != HAR {
			t.Fatalf("%+v", c)
		}
		// A capture that is written as a message is read back the same.
		if c.Format != Raw || len(c.Notes) > 0 ||
			slices.ContainsFunc(c.Headers, func(h Header) bool { return strings.Contains(h.Value, "\n") }) {
			return
		}
		again, err := Parse(writeRaw(c), Raw, 0)
		if err != nil || again.Target != c.Target || !bytes.Equal(again.Body, c.Body) || !slices.Equal(again.Headers, c.Headers) {
			t.Errorf("%+v becomes %+v: %v", c, again, err)
		}
	})
}

// FuzzExamine: no capture makes the examination fail, run without end, or print a control
// byte. The captures are small, because each is searched completely.
func FuzzExamine(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add(v.Target, []byte(v.Body), v.Authorization, v.PubKeyURL, v.ContentType)
	}
	d, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string, body []byte, authorization, keyURL, contentType string) {
		if len(body)+len(target)+len(authorization) > 512 {
			return
		}
		v := vector{vectors.Vector{
			Target: target, Body: string(body), Authorization: authorization, PubKeyURL: keyURL, ContentType: contentType,
		}}
		r, err := d.Examine(t.Context(), v.capture())
		if err != nil {
			t.Fatal(err)
		}
		// The doctor reads a target as package verify does, if verify accepts it.
		if signed, err := verify.StringToSign(target, body); err == nil && r.Received.MD5 != sumOf(string(signed)) {
			t.Errorf("string to sign of %q: %+v", target, r.Received)
		}
		if r.Verdict == Repaired || r.Verdict == Verifies {
			if r.Signed.MD5 == "" || len(r.Signed.MD5) != 2*md5.Size || (r.Verdict == Repaired) != (len(r.Causes) > 0) {
				t.Errorf("%+v", r)
			}
		}
		var out strings.Builder
		if err := r.Write(&out); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(out.String(), func(c rune) bool { return c != '\n' && (c < ' ' || c == 0x7f) }); i >= 0 {
			t.Errorf("control byte in %q", out.String())
		}
	})
}

package ossemu

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// officialVector is a value of the official SDKs' own tests.
type officialVector struct {
	ID, AK, SK, Method, Bucket, Key, Region string
	SecurityToken                           *string           `json:"security_token"`
	Date                                    string            `json:"x_oss_date"`
	Expires                                 int               `json:"x_oss_expires"`
	Headers                                 map[string]string `json:"headers"`
	Additional                              []string          `json:"additional_headers_requested"`
	Query                                   map[string]string `json:"query_params"`
	CanonicalRequest                        string            `json:"canonical_request"`
	StringToSign                            string            `json:"string_to_sign"`
	Signature                               string
	product                                 string
}

func officialVectors(t *testing.T) []officialVector {
	data, err := os.ReadFile("testdata/v4_presign_official.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []officialVector
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	// The other two of the same test files differ from the first in what is set here.
	long := vectors[0]
	long.ID, long.Expires, long.CanonicalRequest, long.StringToSign = "test_auth_query_long_expiration", 432000, "", ""
	long.Signature = "31029123dc7732d2d2cfd4006ea4fdb6cf86da6478f813e2bf8f87877c7b9fec"
	box := vectors[0]
	box.ID, box.Region, box.product, box.CanonicalRequest, box.StringToSign = "TestV4AuthQueryWithCloudBox", "cb-123", "oss-cloudbox", "", ""
	box.Additional = []string{"ZAbc", "abc"}
	box.Signature = "07284191b9b4978ac3520cd39ee2dea2747eda454089359371ff463a6c7ba20f"
	return append(vectors, long, box)
}

func TestV4OfficialQueryVectors(t *testing.T) {
	t.Parallel()
	for _, v := range officialVectors(t) {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			product := "oss"
			if v.product != "" {
				product = v.product
			}
			cred := credential{v.AK, v.Date[:8], v.Region, product, requestV4}
			q := query{"x-oss-signature-version": algorithmV4, "x-oss-credential": v.AK + "/" + cred.scope(),
				"x-oss-date": v.Date, "x-oss-expires": strconv.Itoa(v.Expires), "x-oss-signature": "never canonical"}
			for k, value := range v.Query {
				q[k] = value
			}
			if v.SecurityToken != nil {
				q["x-oss-security-token"] = *v.SecurityToken
			}
			var additional []string
			if len(v.Additional) > 0 {
				var err error
				if additional, err = parseAdditional(strings.ToLower(strings.Join(v.Additional, ";")), inQuery); err != nil {
					t.Fatal(err)
				}
				q["x-oss-additional-headers"] = strings.Join(additional, ";")
			}
			header := http.Header{}
			for k, value := range v.Headers {
				header.Set(k, value)
			}
			canonical := canonicalRequest(v.Method, v.Bucket, v.Key, q, header, "ignored", additional)
			if v.CanonicalRequest != "" {
				if d := cmp.Diff(v.CanonicalRequest, canonical); d != "" {
					t.Errorf("canonical request (-want +got):\n%s", d)
				}
			}
			text := stringToSignV4(v.Date, cred, canonical)
			if v.StringToSign != "" {
				if d := cmp.Diff(v.StringToSign, text); d != "" {
					t.Errorf("string to sign (-want +got):\n%s", d)
				}
			}
			if got := signV4(v.SK, cred, text); got != v.Signature {
				t.Errorf("signature %s, want %s", got, v.Signature)
			}
		})
	}
}

// TestV4OfficialHeaderVectors has the values of the official Go SDK's tests of the
// Authorization header (signer_test.go, 2026-05).
func TestV4OfficialHeaderVectors(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name, date, token string
		authorization     string
	}{
		{"plain", "20231216T162057Z", "", algorithmV4 + " Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,Signature=e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe"},
		{"token", "20231217T034736Z", "token", algorithmV4 + " Credential=ak/20231217/cn-hangzhou/oss/aliyun_v4_request,Signature=b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea"},
		{"additional", "20231216T172512Z", "", algorithmV4 + " Credential=ak/20231216/cn-hangzhou/oss/aliyun_v4_request,AdditionalHeaders=abc;zabc,Signature=4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			for k, value := range map[string]string{"x-oss-head1": "value", "abc": "value", "ZAbc": "value", "XYZ": "value",
				"content-type": "text/plain", "x-oss-content-sha256": unsignedPayload, "x-oss-date": v.date, "Authorization": v.authorization} {
				header.Set(k, value)
			}
			if v.token != "" {
				header.Set("x-oss-security-token", v.token)
			}
			a, err := parseHeaderAuthorization(header)
			if err != nil {
				t.Fatal(err)
			}
			q := query{"param1": "value1", "+param1": "value3", "|param1": "value4", "+param2": "", "|param2": "", "param2": ""}
			canonical := canonicalRequest("PUT", "bucket", "1234+-/123/1.txt", q, header, "", a.additional)
			if got := signV4("sk", a.credential, stringToSignV4(a.date, a.credential, canonical)); got != a.signature {
				t.Errorf("signature %s, want %s", got, a.signature)
			}
		})
	}
}

func TestAuthenticationRefuses(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	now := time.Now().UTC()
	for name, tc := range map[string]struct {
		change      func(*wire)
		inHeader    bool
		status      int
		code, ec    string
		argument    string
		wantMessage string
	}{
		"wrong secret":             {change: func(w *wire) { w.secret = "x" }, status: 403, code: "SignatureDoesNotMatch", ec: "0002-00000040"},
		"wrong secret in header":   {inHeader: true, change: func(w *wire) { w.secret = "x" }, status: 403, code: "SignatureDoesNotMatch", ec: "0002-00000040"},
		"unknown key id":           {change: func(w *wire) { w.keyID = "nobody" }, status: 403, code: "InvalidAccessKeyId", ec: "0002-00000902"},
		"unknown key id in header": {inHeader: true, change: func(w *wire) { w.keyID = "nobody" }, status: 403, code: "InvalidAccessKeyId", ec: "0002-00000902"},
		"other region":             {change: func(w *wire) { w.region = "cn-beijing" }, status: 400, code: "InvalidArgument", ec: "0002-00000226"},
		"region with oss-":         {change: func(w *wire) { w.region = "oss-cn-hangzhou" }, status: 400, code: "InvalidArgument", ec: "0002-00000226"},
		"other product":            {change: func(w *wire) { w.product = "s3" }, status: 400, code: "InvalidArgument", ec: "0002-00000224"},
		"scope of another day":     {change: func(w *wire) { w.date = "20200101" }, status: 400, code: "InvalidArgument", ec: "0002-00000223", wantMessage: "Invalid signing date in Authorization header."},
		"scope date with hyphens":  {change: func(w *wire) { w.date = "2020-01-01" }, status: 400, code: "InvalidArgument", ec: "0002-00000223"},
		"scope date in header":     {inHeader: true, change: func(w *wire) { w.date = "2020-01-01" }, status: 400, code: "InvalidArgument", ec: "0002-00000212"},
		"other product in header":  {inHeader: true, change: func(w *wire) { w.product = "s3" }, status: 400, code: "InvalidArgument", ec: "0002-00000213"},
		"expired":                  {change: func(w *wire) { w.at = now.Add(-time.Hour); w.expires = "60" }, status: 403, code: "AccessDenied", ec: "0002-00000236", wantMessage: "Request has expired."},
		"20 minutes early":         {change: func(w *wire) { w.at = now.Add(20 * time.Minute) }, status: 403, code: "AccessDenied", ec: "0002-00000235"},
		"header 20 minutes old":    {inHeader: true, change: func(w *wire) { w.at = now.Add(-20 * time.Minute) }, status: 403, code: "RequestTimeTooSkewed", ec: "0002-00000504"},
		"header 20 minutes early":  {inHeader: true, change: func(w *wire) { w.at = now.Add(20 * time.Minute) }, status: 403, code: "RequestTimeTooSkewed", ec: "0002-00000504"},
		"no expires":               {change: func(w *wire) { w.expires = "" }, status: 400, code: "InvalidArgument", ec: "0002-00000215", argument: "x-oss-expires"},
		"expires 0":                {change: func(w *wire) { w.expires = "0" }, status: 400, code: "InvalidArgument", ec: "0002-00000232"},
		"expires 604801":           {change: func(w *wire) { w.expires = "604801" }, status: 400, code: "InvalidArgument", ec: "0002-00000232"},
		"expires text":             {change: func(w *wire) { w.expires = "soon" }, status: 400, code: "InvalidArgument", ec: "0002-00000232"},
		"listed header missing":    {change: func(w *wire) { w.additional = "abc" }, status: 400, code: "InvalidArgument", ec: "0002-00000078", argument: "x-oss-additional-headers"},
		"underscore in list":       {change: func(w *wire) { w.additional = "a_b"; w.header.Set("a_b", "1") }, status: 400, code: "InvalidArgument", ec: "0002-00000078"},
		"empty name in list":       {change: func(w *wire) { w.additional = "abc;" }, status: 400, code: "InvalidArgument", ec: "0002-00000077"},
		"header: listed missing":   {inHeader: true, change: func(w *wire) { w.additional = "range" }, status: 400, code: "InvalidArgument", ec: "0002-00000211"},
		"header: underscore":       {inHeader: true, change: func(w *wire) { w.additional = "a_b"; w.header.Set("a_b", "1") }, status: 400, code: "InvalidArgument", ec: "0002-00000211"},
		"header: empty name":       {inHeader: true, change: func(w *wire) { w.additional = "host;" }, status: 400, code: "InvalidArgument", ec: "0002-00000210"},
		"header: empty list":       {inHeader: true, change: authorization4("AdditionalHeaders=,"), status: 400, code: "InvalidArgument", ec: "0002-00000209"},
		"header: unknown field":    {inHeader: true, change: authorization4("UnknownKey=1,"), status: 400, code: "InvalidArgument", ec: "0002-00000204"},
		"header: no equals sign":   {inHeader: true, change: authorization4("AdditionalHeadershost,"), status: 400, code: "InvalidArgument", ec: "0002-00000203"},
		"header: no credential":    {inHeader: true, change: addHeader("Authorization", algorithmV4+" Signature=x"), status: 400, code: "InvalidArgument", ec: "0002-00000205"},
		"header: empty signature":  {inHeader: true, change: addHeader("Authorization", algorithmV4+" Credential=a/b/c/d/e,Signature="), status: 400, code: "InvalidArgument", ec: "0002-00000208"},
		"listed twice":             {change: func(w *wire) { w.additional = "abc;abc" }, status: 400, code: "InvalidArgument"},
		"upper case in list":       {change: func(w *wire) { w.additional = "Abc" }, status: 400, code: "InvalidArgument"},
		"empty list":               {change: appendQuery("x-oss-additional-headers="), status: 400, code: "InvalidArgument", ec: "0002-00000076"},
		"unexpected token":         {change: func(w *wire) { w.query.Set("x-oss-security-token", "t") }, status: 403, code: "InvalidSecurityToken", ec: "0002-00000008"},
		"x-oss header added":       {change: addHeader("x-oss-object-acl", "public-read"), status: 403, code: "SignatureDoesNotMatch"},
		"callback header added":    {change: addHeader("x-oss-callback", "e30="), status: 403, code: "SignatureDoesNotMatch"},
		"content type added":       {change: addHeader("Content-Type", "text/html"), status: 403, code: "SignatureDoesNotMatch"},
		"content md5 added":        {change: addHeader("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg=="), status: 403, code: "SignatureDoesNotMatch"},
		"signed header dropped": {change: func(w *wire) {
			w.header.Set("x-oss-meta-a", "1")
			w.tamper = func(r *http.Request) { r.Header.Del("x-oss-meta-a") }
		}, status: 403, code: "SignatureDoesNotMatch"},
		"parameter added":                {change: appendQuery("callback=e30="), status: 403, code: "SignatureDoesNotMatch"},
		"parameter twice":                {change: appendQuery("x-oss-expires=604800"), status: 400, code: "InvalidArgument", argument: "x-oss-expires"},
		"parameter twice, spelled apart": {change: appendQuery("x-oss%2Dexpires=604800"), status: 400, code: "InvalidArgument", argument: "x-oss-expires"},
		"broken escape":                  {change: appendQuery("a=%zz"), status: 400, code: "InvalidArgument"},
		"other key":                      {change: func(w *wire) { w.tamper = func(r *http.Request) { r.URL.Path = "/demo/other" } }, status: 403, code: "SignatureDoesNotMatch"},
		"other bucket":                   {change: func(w *wire) { w.tamper = func(r *http.Request) { r.URL.Path = "/other/k" } }, status: 403, code: "SignatureDoesNotMatch"},
		"other method":                   {change: func(w *wire) { w.tamper = func(r *http.Request) { r.Method = "DELETE" } }, status: 403, code: "SignatureDoesNotMatch"},
		"upper-case signature":           {change: replaceQuery(func(s string) string { return upperSignature(s) }), status: 400, code: "InvalidArgument", argument: "x-oss-signature"},
		"short signature":                {change: replaceQuery(func(s string) string { return s[:len(s)-1] }), status: 400, code: "InvalidArgument", argument: "x-oss-signature"},
		"version 1 in query":             {change: onlyQuery("OSSAccessKeyId=a&Expires=1&Signature=b"), status: 400, code: "InvalidArgument"},
		"version 2 in query":             {change: onlyQuery("x-oss-signature-version=OSS2&x-oss-signature=b"), status: 400, code: "InvalidArgument", ec: "0002-00000066", argument: "x-oss-signature-version"},
		"no credential":                  {change: onlyQuery("x-oss-signature-version=" + algorithmV4 + "&x-oss-signature=b"), status: 400, code: "InvalidArgument", ec: "0002-00000217"},
		"anonymous":                      {change: onlyQuery(""), status: 403, code: "AccessDenied", ec: "0003-00000001"},
		"header and query":               {change: addHeader("Authorization", algorithmV4+" x"), status: 400, code: "InvalidArgument"},
		"version 1 in header":            {inHeader: true, change: addHeader("Authorization", "OSS a:b"), status: 400, code: "InvalidArgument"},
		"header without signature":       {inHeader: true, change: addHeader("Authorization", algorithmV4+" Credential=a/b/c/d/e"), status: 400, code: "InvalidArgument", ec: "0002-00000207", argument: "Signature"},
		"header with short credential":   {inHeader: true, change: addHeader("Authorization", algorithmV4+" Credential=a/b/c/d,Signature=x"), status: 400, code: "InvalidArgument", ec: "0002-00000213", argument: "Credential"},
		"header with a field twice":      {inHeader: true, change: addHeader("Authorization", algorithmV4+" Credential=a,Credential=b,Signature=x"), status: 400, code: "InvalidArgument"},
		"header without date":            {inHeader: true, change: func(w *wire) { w.tamper = func(r *http.Request) { r.Header.Del("x-oss-date") } }, status: 403, code: "AccessDenied", ec: "0002-00000503"},
		"query without date":             {change: replaceQuery(func(s string) string { return strings.Replace(s, "x-oss-date=", "x-oss-data=", 1) }), status: 403, code: "AccessDenied", ec: "0002-00000503"},
		"query date of HTTP":             {change: func(w *wire) { w.query.Set("x-oss-date", w.at.Format(http.TimeFormat)) }, status: 403, code: "AccessDenied", ec: "0002-00000502"},
		"x-oss-date of HTTP":             {inHeader: true, change: func(w *wire) { w.dateHeader = w.at.Format(http.TimeFormat) }, status: 403, code: "AccessDenied", ec: "0002-00000502"},
		"Date in ISO 8601":               {inHeader: true, change: func(w *wire) { w.dateIn, w.dateHeader = "Date", w.at.Format(isoTime) }, status: 403, code: "AccessDenied", ec: "0002-00000502"},
		"Date 20 minutes old": {inHeader: true, change: func(w *wire) {
			w.at = now.Add(-20 * time.Minute)
			w.dateIn, w.dateHeader = "Date", w.at.Format(http.TimeFormat)
		}, status: 403, code: "RequestTimeTooSkewed", ec: "0002-00000504"},
		"Date of another day's scope": {inHeader: true, change: func(w *wire) { w.date = "20200101"; w.dateIn, w.dateHeader = "Date", w.at.Format(http.TimeFormat) }, status: 400, code: "InvalidArgument", ec: "0002-00000212"},
		"Date changed": {inHeader: true, change: func(w *wire) {
			w.dateIn, w.dateHeader = "Date", w.at.Format(http.TimeFormat)
			addHeader("Date", w.at.Add(time.Second).Format(http.TimeFormat))(w)
		}, status: 403, code: "SignatureDoesNotMatch", ec: "0002-00000040"},
		"payload hash":         {inHeader: true, change: addHeader("x-oss-content-sha256", strings.Repeat("0", 64)), status: 400, code: "InvalidArgument", ec: "0002-00000214"},
		"payload hash missing": {inHeader: true, change: func(w *wire) { w.tamper = func(r *http.Request) { r.Header.Del("x-oss-content-sha256") } }, status: 400, code: "InvalidArgument", ec: "0002-00000214"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire("PUT", base, "k")
			tc.change(w)
			r := w.presigned
			if tc.inHeader {
				r = w.headerSigned
			}
			e := wantError(t, send(t, r(t)), tc.status, tc.code)
			if e.EC != tc.ec && (tc.ec != "" || e.Code == "InvalidArgument") {
				t.Errorf("EC %q, want %q", e.EC, tc.ec)
			}
			if tc.argument != "" && e.ArgumentName != tc.argument {
				t.Errorf("ArgumentName %q, want %q", e.ArgumentName, tc.argument)
			}
			if tc.wantMessage != "" && e.Message != tc.wantMessage {
				t.Errorf("message %q, want %q", e.Message, tc.wantMessage)
			}
			if e.Code == "SignatureDoesNotMatch" && (e.StringToSign == "" || e.CanonicalRequest == "" ||
				e.SignatureProvided == "" || e.OSSAccessKeyId != testKeyID) {
				t.Errorf("details are missing: %+v", e)
			}
			times := map[string][]string{"0002-00000235": {e.RequestTime, e.ServerTime}, "0002-00000236": {e.Expires, e.ServerTime}, "0002-00000504": {e.RequestTime, e.ServerTime}}
			for _, text := range times[tc.ec] {
				if _, err := time.Parse("2006-01-02T15:04:05.000Z", text); err != nil {
					t.Errorf("time %q: %v", text, err)
				}
			}
		})
	}
}

// authorization4 puts a field at the head of the Authorization header.
func authorization4(field string) func(*wire) {
	return func(w *wire) {
		w.tamper = func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), algorithmV4+" ", algorithmV4+" "+field, 1))
		}
	}
}

func addHeader(name, value string) func(*wire) {
	return func(w *wire) { w.tamper = func(r *http.Request) { r.Header.Set(name, value) } }
}

func appendQuery(s string) func(*wire) {
	return func(w *wire) { w.tamper = func(r *http.Request) { r.URL.RawQuery += "&" + s } }
}

func onlyQuery(s string) func(*wire) {
	return func(w *wire) { w.tamper = func(r *http.Request) { r.URL.RawQuery = s } }
}

func replaceQuery(f func(string) string) func(*wire) {
	return func(w *wire) { w.tamper = func(r *http.Request) { r.URL.RawQuery = f(r.URL.RawQuery) } }
}

func upperSignature(raw string) string {
	before, signature, _ := strings.Cut(raw, "x-oss-signature=")
	return before + "x-oss-signature=A" + strings.ToUpper(signature[1:])
}

func TestAuthenticationAccepts(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for name, change := range map[string]func(*wire){
		"plain":                 func(*wire) {},
		"seven days":            func(w *wire) { w.expires = "604800" },
		"signed an hour ago":    func(w *wire) { w.at = w.at.Add(-time.Hour); w.expires = "7200" },
		"ten minutes early":     func(w *wire) { w.at = w.at.Add(10 * time.Minute) },
		"odd key":               func(w *wire) { w.key = "a//b/../1234+- %&?=#ü~.txt" },
		"host signed":           func(w *wire) { w.additional = "host" },
		"extra unsigned header": addHeader("X-Anything", "1"),
		"odd parameters": func(w *wire) {
			w.query.Set("a b+c", "d/e=f&g")
			w.query.Set("callback-varx", "1")
			w.query.Set("callbackx", "2")
		},
		"payload stated": func(w *wire) { w.header.Set("x-oss-content-sha256", unsignedPayload) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire("PUT", base, "k")
			change(w)
			if got := send(t, w.presigned(t)); got.status != 200 {
				t.Errorf("status %d\n%s", got.status, got.body)
			}
		})
	}
}

// TestDateHeader: clients such as the first Go SDK send the date of a header signature in
// Date, in the form of HTTP, and sign that text.
func TestDateHeader(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	for name, change := range map[string]func(*wire){
		"Date alone":           func(*wire) {},
		"Date ten minutes ago": func(w *wire) { w.at = w.at.Add(-10 * time.Minute); w.dateHeader = w.at.Format(http.TimeFormat) },
		"Date signed too":      func(w *wire) { w.additional = "date" },
		"of another time beside x-oss-date": func(w *wire) {
			w.dateIn, w.dateHeader = "", ""
			w.header.Set("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
		},
		"of no form beside x-oss-date": func(w *wire) { w.dateIn, w.dateHeader = "", ""; w.header.Set("Date", "now") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire("PUT", base, "k")
			w.at = w.at.Truncate(time.Second)
			w.dateIn, w.dateHeader = "Date", w.at.Format(http.TimeFormat)
			change(w)
			if got := send(t, w.headerSigned(t)); got.status != 200 {
				t.Errorf("status %d\n%s", got.status, got.body)
			}
		})
	}
}

func TestSecurityToken(t *testing.T) {
	t.Parallel()
	_, base := start(t, func(c *Config) { c.SecurityToken = "sts" })
	for token, want := range map[string]int{"sts": 200, "other": 403, "": 403} {
		w := newWire("PUT", base, "k")
		if token != "" {
			w.query.Set("x-oss-security-token", token)
		}
		if got := send(t, w.presigned(t)); got.status != want {
			t.Errorf("token %q: status %d, want %d\n%s", token, got.status, want, got.body)
		}
	}
}

func TestParseAuthorizationErrorsAreAnswers(t *testing.T) {
	t.Parallel()
	_, err := parseHeaderAuthorization(http.Header{"Authorization": {"a", "b"}})
	if e, ok := errors.AsType[*apiError](err); !ok || e.code != "InvalidArgument" {
		t.Errorf("two headers: %v", err)
	}
}

package presign_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/presign"
)

func goodConfig() presign.Config {
	return presign.Config{Region: "cn-hangzhou", AccessKeyID: "ak", AccessKeySecret: "sk"}
}

func goodPut() presign.Put {
	return presign.Put{Object: presign.Object{Bucket: "demo", Key: "photos/cat.jpg"}, Expires: time.Hour}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*presign.Config)
		want   string // the URL up to the query
		host   string
	}{
		{"public", func(*presign.Config) {}, "https://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", ""},
		{"internal", func(c *presign.Config) { c.Internal = true }, "https://demo.oss-cn-hangzhou-internal.aliyuncs.com/photos/cat.jpg", ""},
		{"accelerate", func(c *presign.Config) { c.Accelerate = true }, "https://demo.oss-accelerate.aliyuncs.com/photos/cat.jpg", ""},
		{"explicit", func(c *presign.Config) { c.Endpoint = "oss-cn-hangzhou.aliyuncs.com" }, "https://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", "oss-cn-hangzhou.aliyuncs.com"},
		{"explicit internal", func(c *presign.Config) { c.Endpoint = "https://oss-cn-hangzhou-internal.aliyuncs.com/" }, "https://demo.oss-cn-hangzhou-internal.aliyuncs.com/photos/cat.jpg", "oss-cn-hangzhou-internal.aliyuncs.com"},
		{"explicit acceleration", func(c *presign.Config) { c.Endpoint = "oss-accelerate-overseas.aliyuncs.com" }, "https://demo.oss-accelerate-overseas.aliyuncs.com/photos/cat.jpg", "oss-accelerate-overseas.aliyuncs.com"},
		{"dual stack", func(c *presign.Config) { c.Endpoint = "cn-hangzhou.oss.aliyuncs.com" }, "https://demo.cn-hangzhou.oss.aliyuncs.com/photos/cat.jpg", "cn-hangzhou.oss.aliyuncs.com"},
		{"plain HTTP", func(c *presign.Config) { c.Endpoint = "http://oss-cn-hangzhou.aliyuncs.com" }, "http://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", "oss-cn-hangzhou.aliyuncs.com"},
		{"custom domain", func(c *presign.Config) { c.Endpoint, c.CName = "files.example.com", true }, "https://files.example.com/photos/cat.jpg", "files.example.com"},
		{"custom domain that is the bucket's own", func(c *presign.Config) { c.Endpoint, c.CName = "demo.oss-cn-hangzhou.aliyuncs.com", true }, "https://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", "demo.oss-cn-hangzhou.aliyuncs.com"},
		{"emulator in path style", func(c *presign.Config) { c.Endpoint, c.PathStyle = "http://OSSEMU:9000", true }, "http://OSSEMU:9000/demo/photos/cat.jpg", "ossemu"},
		{"emulator by name", func(c *presign.Config) { c.Endpoint = "http://localhost:9000" }, "http://demo.localhost:9000/photos/cat.jpg", "localhost"},
		{"address implies path style", func(c *presign.Config) { c.Endpoint = "http://127.0.0.1:9000" }, "http://127.0.0.1:9000/demo/photos/cat.jpg", "127.0.0.1"},
		{"IPv6 address", func(c *presign.Config) { c.Endpoint = "http://[::1]:9000" }, "http://[::1]:9000/demo/photos/cat.jpg", "::1"},
		{"another region", func(c *presign.Config) { c.Region = "ap-southeast-1" }, "https://demo.oss-ap-southeast-1.aliyuncs.com/photos/cat.jpg", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := goodConfig()
			tt.change(&cfg)
			p, err := presign.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := p.Put(t.Context(), goodPut())
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := strings.Cut(signed.URL, "?"); got != tt.want {
				t.Errorf("URL %s, want %s", got, tt.want)
			}
			if _, err := url.Parse(signed.URL); err != nil {
				t.Error(err)
			}
			if p.Host() != tt.host {
				t.Errorf("host %q, want %q", p.Host(), tt.host)
			}
		})
	}
}

func TestConfigRejections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*presign.Config)
		rule   error
		says   string // part of the error, the mend above all
	}{
		{"no region", func(c *presign.Config) { c.Region = "" }, presign.ErrRegion, "give the bucket's region"},
		{"no region but an endpoint", func(c *presign.Config) { c.Region, c.Endpoint = "", "oss-cn-beijing.aliyuncs.com" }, presign.ErrRegion, "give cn-beijing"},
		{"no region but a dual-stack endpoint", func(c *presign.Config) { c.Region, c.Endpoint = "", "cn-beijing.oss.aliyuncs.com" }, presign.ErrRegion, "give cn-beijing"},
		{"no region and an accelerated endpoint", func(c *presign.Config) { c.Region, c.Endpoint = "", "oss-accelerate.aliyuncs.com" }, presign.ErrRegion, "give the bucket's region"},
		{"region with prefix", func(c *presign.Config) { c.Region = "oss-cn-hangzhou" }, presign.ErrRegion, "give cn-hangzhou"},
		{"region with prefix and endpoint", func(c *presign.Config) { c.Region, c.Endpoint = "oss-cn-hangzhou", "oss-cn-hangzhou.aliyuncs.com" }, presign.ErrRegion, "give cn-hangzhou"},
		{"endpoint as region", func(c *presign.Config) { c.Region = "oss-cn-hangzhou.aliyuncs.com" }, presign.ErrRegion, "give cn-hangzhou"},
		{"internal endpoint as region", func(c *presign.Config) { c.Region = "oss-cn-hangzhou-internal.aliyuncs.com" }, presign.ErrRegion, "give cn-hangzhou"},
		{"region in capitals", func(c *presign.Config) { c.Region = "CN-Hangzhou" }, presign.ErrRegion, "give cn-hangzhou"},
		{"region of a kind of its own", func(c *presign.Config) { c.Region = "cn hangzhou" }, presign.ErrRegion, "as in cn-hangzhou"},
		{"region that is a prefix only", func(c *presign.Config) { c.Region = "oss-" }, presign.ErrRegion, "as in cn-hangzhou"},
		{"region with a line break", func(c *presign.Config) { c.Region = "cn-hangzhou\n" }, presign.ErrRegion, "as in cn-hangzhou"},

		{"endpoint in another region", func(c *presign.Config) { c.Endpoint = "oss-cn-beijing.aliyuncs.com" }, presign.ErrEndpoint, "region cn-beijing"},
		{"internal endpoint in another region", func(c *presign.Config) { c.Endpoint = "oss-cn-beijing-internal.aliyuncs.com" }, presign.ErrEndpoint, "region cn-beijing"},
		{"dual-stack endpoint in another region", func(c *presign.Config) { c.Endpoint = "cn-beijing.oss.aliyuncs.com" }, presign.ErrEndpoint, "region cn-beijing"},
		{"bucket's own domain in another region", func(c *presign.Config) { c.Endpoint, c.CName = "demo.oss-cn-beijing.aliyuncs.com", true }, presign.ErrEndpoint, "region cn-beijing"},
		{"bucket in the endpoint", func(c *presign.Config) { c.Endpoint = "demo.oss-cn-hangzhou.aliyuncs.com" }, presign.ErrEndpoint, "leave the bucket out"},
		{"bucket in the dual-stack endpoint", func(c *presign.Config) { c.Endpoint = "demo.cn-hangzhou.oss.aliyuncs.com" }, presign.ErrEndpoint, "leave the bucket out"},
		{"path in the endpoint", func(c *presign.Config) { c.Endpoint = "https://oss-cn-hangzhou.aliyuncs.com/demo" }, presign.ErrEndpoint, "path or a query"},
		{"query in the endpoint", func(c *presign.Config) { c.Endpoint = "https://oss-cn-hangzhou.aliyuncs.com?" }, presign.ErrEndpoint, "path or a query"},
		{"fragment in the endpoint", func(c *presign.Config) { c.Endpoint = "https://oss-cn-hangzhou.aliyuncs.com#" }, presign.ErrEndpoint, "path or a query"},
		{"scheme", func(c *presign.Config) { c.Endpoint = "ftp://oss-cn-hangzhou.aliyuncs.com" }, presign.ErrEndpoint, "http or https"},
		{"no host", func(c *presign.Config) { c.Endpoint = "https://" }, presign.ErrEndpoint, "no host"},
		{"port that is none", func(c *presign.Config) { c.Endpoint = "http://localhost:0" }, presign.ErrEndpoint, "1 to 65535"},
		{"port too large", func(c *presign.Config) { c.Endpoint = "http://localhost:65536" }, presign.ErrEndpoint, "1 to 65535"},
		{"port in words", func(c *presign.Config) { c.Endpoint = "http://localhost:http" }, presign.ErrEndpoint, "cannot be parsed"},
		{"port left out", func(c *presign.Config) { c.Endpoint = "http://localhost:" }, presign.ErrEndpoint, "1 to 65535"},
		{"space", func(c *presign.Config) { c.Endpoint = "oss-cn-hangzhou.aliyuncs.com " }, presign.ErrEndpoint, "character"},
		{"not ASCII", func(c *presign.Config) { c.Endpoint = "öss.example.com" }, presign.ErrEndpoint, "character"},
		{"user name", func(c *presign.Config) { c.Endpoint = "https://user:hunter2@oss.example.com" }, presign.ErrEndpoint, "leave them out"},

		{"password in an endpoint with other mistakes", func(c *presign.Config) { c.Endpoint = "ftp://user:hunter2@oss.example.com:x/ ?" }, presign.ErrEndpoint, "leave them out"},
		{"internal region", func(c *presign.Config) { c.Region, c.Endpoint = "cn-hangzhou-internal", "oss-cn-hangzhou.aliyuncs.com" }, presign.ErrRegion, "give cn-hangzhou"},

		{"internal and accelerated", func(c *presign.Config) { c.Internal, c.Accelerate = true, true }, presign.ErrEndpoint, "choose one"},
		{"internal with an endpoint", func(c *presign.Config) { c.Internal, c.Endpoint = true, "oss.example.com" }, presign.ErrEndpoint, "internal:"},
		{"accelerated with an endpoint", func(c *presign.Config) { c.Accelerate, c.Endpoint = true, "oss.example.com" }, presign.ErrEndpoint, "accelerate:"},
		{"custom domain without one", func(c *presign.Config) { c.CName = true }, presign.ErrEndpoint, "custom domain"},
		{"custom domain that is an address", func(c *presign.Config) { c.CName, c.Endpoint = true, "http://10.0.0.1" }, presign.ErrEndpoint, "no domain"},
		{"custom domain in path style", func(c *presign.Config) { c.CName, c.PathStyle, c.Endpoint = true, true, "files.example.com" }, presign.ErrEndpoint, "cname:"},
		{"path style at OSS", func(c *presign.Config) { c.PathStyle = true }, presign.ErrEndpoint, "refused by OSS"},
		{"path style at an endpoint of OSS", func(c *presign.Config) { c.PathStyle, c.Endpoint = true, "oss-cn-hangzhou.aliyuncs.com" }, presign.ErrEndpoint, "refused by OSS"},

		{"no access key id", func(c *presign.Config) { c.AccessKeyID = "" }, presign.ErrCredentials, "OSS_ACCESS_KEY_ID_FILE"},
		{"no access key secret", func(c *presign.Config) { c.AccessKeySecret = "" }, presign.ErrCredentials, "OSS_ACCESS_KEY_SECRET_FILE"},
		{"access key id with a line break", func(c *presign.Config) { c.AccessKeyID = "hunter2\n" }, presign.ErrCredentials, "line break"},
		{"secret with a space", func(c *presign.Config) { c.AccessKeySecret = "hunter2 " }, presign.ErrCredentials, "line break"},
		{"session token with a line break", func(c *presign.Config) { c.SessionToken = "hunter\n2" }, presign.ErrCredentials, "OSS_SESSION_TOKEN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := goodConfig()
			tt.change(&cfg)
			p, err := presign.New(cfg)
			if p != nil {
				t.Error("a presigner was returned")
			}
			checkMistakes(t, err, tt.says, tt.rule)
		})
	}
}

func TestConfigMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := presign.New(presign.Config{Region: "oss-cn-hangzhou", Endpoint: "ftp://x", Internal: true, SessionToken: "a b"})
	checkMistakes(t, err, "", presign.ErrRegion, presign.ErrEndpoint, presign.ErrEndpoint,
		presign.ErrCredentials, presign.ErrCredentials, presign.ErrCredentials)
}

// checkMistakes asserts that err joins exactly one FieldError for each rule, in order,
// each one line long, and that no secret of the tests is in it.
func checkMistakes(t *testing.T, err error, says string, rules ...error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	mistakes := flatten(err)
	if len(mistakes) != len(rules) {
		t.Fatalf("%d mistakes, want %d:\n%v", len(mistakes), len(rules), err)
	}
	for i, mistake := range mistakes {
		field, ok := errors.AsType[*callbackspec.FieldError](mistake)
		if !ok || !errors.Is(field.Rule, rules[i]) {
			t.Errorf("mistake %v, want one of the rule %v", mistake, rules[i])
		}
		if strings.Contains(mistake.Error(), "\n") {
			t.Errorf("mistake of several lines: %q", mistake)
		}
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("error %q does not say %q", err, says)
	}
	if strings.Contains(err.Error(), "hunter") {
		t.Errorf("error holds a secret: %q", err)
	}
}

func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

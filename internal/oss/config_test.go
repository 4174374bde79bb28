package oss_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"upcall/internal/fault"
	"upcall/internal/oss"
)

func goodConfig() oss.Config {
	return oss.Config{Region: "cn-hangzhou", AccessKeyID: "ak", AccessKeySecret: "sk"}
}

func goodPut() oss.Put {
	return oss.Put{Object: oss.Object{Bucket: "demo", Key: "photos/cat.jpg"}, Expires: time.Hour}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*oss.Config)
		want   string // the URL up to the query
		host   string
	}{
		{"public", func(*oss.Config) {}, "https://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", ""},
		{"internal", func(c *oss.Config) { c.Internal = true }, "https://demo.oss-cn-hangzhou-internal.aliyuncs.com/photos/cat.jpg", ""},
		{"accelerate", func(c *oss.Config) { c.Accelerate = true }, "https://demo.oss-accelerate.aliyuncs.com/photos/cat.jpg", ""},
		{"explicit", func(c *oss.Config) { c.Endpoint = "oss-cn-hangzhou.aliyuncs.com" },
			"https://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", "oss-cn-hangzhou.aliyuncs.com"},
		{"explicit internal", func(c *oss.Config) { c.Endpoint = "https://oss-cn-hangzhou-internal.aliyuncs.com/" },
			"https://demo.oss-cn-hangzhou-internal.aliyuncs.com/photos/cat.jpg", "oss-cn-hangzhou-internal.aliyuncs.com"},
		{"explicit acceleration", func(c *oss.Config) { c.Endpoint = "oss-accelerate-overseas.aliyuncs.com" },
			"https://demo.oss-accelerate-overseas.aliyuncs.com/photos/cat.jpg", "oss-accelerate-overseas.aliyuncs.com"},
		{"dual stack", func(c *oss.Config) { c.Endpoint = "cn-hangzhou.oss.aliyuncs.com" },
			"https://demo.cn-hangzhou.oss.aliyuncs.com/photos/cat.jpg", "cn-hangzhou.oss.aliyuncs.com"},
		{"plain HTTP", func(c *oss.Config) { c.Endpoint = "http://oss-cn-hangzhou.aliyuncs.com" },
			"http://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", "oss-cn-hangzhou.aliyuncs.com"},
		{"custom domain", func(c *oss.Config) { c.Endpoint, c.CName = "files.example.com", true },
			"https://files.example.com/photos/cat.jpg", "files.example.com"},
		{"the bucket's own domain as a custom domain",
			func(c *oss.Config) { c.Endpoint, c.CName = "demo.oss-cn-hangzhou.aliyuncs.com", true },
			"https://demo.oss-cn-hangzhou.aliyuncs.com/photos/cat.jpg", "demo.oss-cn-hangzhou.aliyuncs.com"},
		{"emulator in path style", func(c *oss.Config) { c.Endpoint, c.PathStyle = "http://OSSEMU:9000", true },
			"http://OSSEMU:9000/demo/photos/cat.jpg", "ossemu"},
		{"emulator by name", func(c *oss.Config) { c.Endpoint = "http://localhost:9000" },
			"http://demo.localhost:9000/photos/cat.jpg", "localhost"},
		{"address implies path style", func(c *oss.Config) { c.Endpoint = "http://127.0.0.1:9000" },
			"http://127.0.0.1:9000/demo/photos/cat.jpg", "127.0.0.1"},
		{"IPv6 address", func(c *oss.Config) { c.Endpoint = "http://[::1]:9000" }, "http://[::1]:9000/demo/photos/cat.jpg", "::1"},
		{"another region", func(c *oss.Config) { c.Region = "ap-southeast-1" },
			"https://demo.oss-ap-southeast-1.aliyuncs.com/photos/cat.jpg", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := goodConfig()
			tt.change(&cfg)
			p, err := oss.New(cfg)
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
		change func(*oss.Config)
		rule   error
		says   string // part of the error, the fix above all
	}{
		{"no region", func(c *oss.Config) { c.Region = "" }, oss.ErrRegion, "give the bucket's region"},
		{"no region but an endpoint", func(c *oss.Config) { c.Region, c.Endpoint = "", "oss-cn-beijing.aliyuncs.com" },
			oss.ErrRegion, "give cn-beijing"},
		{"no region but a dual-stack endpoint",
			func(c *oss.Config) { c.Region, c.Endpoint = "", "cn-beijing.oss.aliyuncs.com" }, oss.ErrRegion,
			"give cn-beijing"},
		{"no region and an accelerated endpoint",
			func(c *oss.Config) { c.Region, c.Endpoint = "", "oss-accelerate.aliyuncs.com" }, oss.ErrRegion,
			"give the bucket's region"},
		{"region with prefix", func(c *oss.Config) { c.Region = "oss-cn-hangzhou" }, oss.ErrRegion, "give cn-hangzhou"},
		{"region with prefix and endpoint",
			func(c *oss.Config) { c.Region, c.Endpoint = "oss-cn-hangzhou", "oss-cn-hangzhou.aliyuncs.com" }, oss.ErrRegion,
			"give cn-hangzhou"},
		{"endpoint as region", func(c *oss.Config) { c.Region = "oss-cn-hangzhou.aliyuncs.com" }, oss.ErrRegion, "give cn-hangzhou"},
		{"internal endpoint as region", func(c *oss.Config) { c.Region = "oss-cn-hangzhou-internal.aliyuncs.com" },
			oss.ErrRegion, "give cn-hangzhou"},
		{"region in capitals", func(c *oss.Config) { c.Region = "CN-Hangzhou" }, oss.ErrRegion, "give cn-hangzhou"},
		{"region with a space", func(c *oss.Config) { c.Region = "cn hangzhou" }, oss.ErrRegion, "as in cn-hangzhou"},
		{"region that is a prefix only", func(c *oss.Config) { c.Region = "oss-" }, oss.ErrRegion, "as in cn-hangzhou"},
		{"region with a line break", func(c *oss.Config) { c.Region = "cn-hangzhou\n" }, oss.ErrRegion, "as in cn-hangzhou"},

		{"endpoint in another region", func(c *oss.Config) { c.Endpoint = "oss-cn-beijing.aliyuncs.com" }, oss.ErrEndpoint, "region cn-beijing"},
		{"internal endpoint in another region", func(c *oss.Config) { c.Endpoint = "oss-cn-beijing-internal.aliyuncs.com" },
			oss.ErrEndpoint, "region cn-beijing"},
		{"dual-stack endpoint in another region", func(c *oss.Config) { c.Endpoint = "cn-beijing.oss.aliyuncs.com" },
			oss.ErrEndpoint, "region cn-beijing"},
		{"bucket's own domain in another region",
			func(c *oss.Config) { c.Endpoint, c.CName = "demo.oss-cn-beijing.aliyuncs.com", true }, oss.ErrEndpoint,
			"region cn-beijing"},
		{"bucket in the endpoint", func(c *oss.Config) { c.Endpoint = "demo.oss-cn-hangzhou.aliyuncs.com" },
			oss.ErrEndpoint, "leave the bucket out"},
		{"bucket in the dual-stack endpoint", func(c *oss.Config) { c.Endpoint = "demo.cn-hangzhou.oss.aliyuncs.com" },
			oss.ErrEndpoint, "leave the bucket out"},
		{"path in the endpoint", func(c *oss.Config) { c.Endpoint = "https://oss-cn-hangzhou.aliyuncs.com/demo" },
			oss.ErrEndpoint, "path or a query"},
		{"query in the endpoint", func(c *oss.Config) { c.Endpoint = "https://oss-cn-hangzhou.aliyuncs.com?" },
			oss.ErrEndpoint, "path or a query"},
		{"fragment in the endpoint", func(c *oss.Config) { c.Endpoint = "https://oss-cn-hangzhou.aliyuncs.com#" },
			oss.ErrEndpoint, "path or a query"},
		{"scheme", func(c *oss.Config) { c.Endpoint = "ftp://oss-cn-hangzhou.aliyuncs.com" }, oss.ErrEndpoint, "http or https"},
		{"no host", func(c *oss.Config) { c.Endpoint = "https://" }, oss.ErrEndpoint, "no host"},
		{"port 0", func(c *oss.Config) { c.Endpoint = "http://localhost:0" }, oss.ErrEndpoint, "1 to 65535"},
		{"port too large", func(c *oss.Config) { c.Endpoint = "http://localhost:65536" }, oss.ErrEndpoint, "1 to 65535"},
		{"port in words", func(c *oss.Config) { c.Endpoint = "http://localhost:http" }, oss.ErrEndpoint, "cannot be parsed"},
		{"port left out", func(c *oss.Config) { c.Endpoint = "http://localhost:" }, oss.ErrEndpoint, "1 to 65535"},
		{"space", func(c *oss.Config) { c.Endpoint = "oss-cn-hangzhou.aliyuncs.com " }, oss.ErrEndpoint, "character"},
		{"not ASCII", func(c *oss.Config) { c.Endpoint = "öss.example.com" }, oss.ErrEndpoint, "character"},
		{"user name", func(c *oss.Config) { c.Endpoint = "https://user:hunter2@oss.example.com" }, oss.ErrEndpoint, "leave them out"},

		{"password in an endpoint with other mistakes",
			func(c *oss.Config) { c.Endpoint = "ftp://user:hunter2@oss.example.com:x/ ?" }, oss.ErrEndpoint,
			"leave them out"},
		{"internal region",
			func(c *oss.Config) { c.Region, c.Endpoint = "cn-hangzhou-internal", "oss-cn-hangzhou.aliyuncs.com" },
			oss.ErrRegion, "give cn-hangzhou"},

		{"internal and accelerated", func(c *oss.Config) { c.Internal, c.Accelerate = true, true }, oss.ErrEndpoint, "choose one"},
		{"internal with an endpoint", func(c *oss.Config) { c.Internal, c.Endpoint = true, "oss.example.com" }, oss.ErrEndpoint, "internal:"},
		{"accelerated with an endpoint", func(c *oss.Config) { c.Accelerate, c.Endpoint = true, "oss.example.com" },
			oss.ErrEndpoint, "accelerate:"},
		{"custom domain without one", func(c *oss.Config) { c.CName = true }, oss.ErrEndpoint, "custom domain"},
		{"custom domain that is an address", func(c *oss.Config) { c.CName, c.Endpoint = true, "http://10.0.0.1" },
			oss.ErrEndpoint, "not a domain"},
		{"custom domain in path style",
			func(c *oss.Config) { c.CName, c.PathStyle, c.Endpoint = true, true, "files.example.com" }, oss.ErrEndpoint,
			"cname:"},
		{"path style at OSS", func(c *oss.Config) { c.PathStyle = true }, oss.ErrEndpoint, "rejected by OSS"},
		{"path style at an endpoint of OSS",
			func(c *oss.Config) { c.PathStyle, c.Endpoint = true, "oss-cn-hangzhou.aliyuncs.com" }, oss.ErrEndpoint,
			"rejected by OSS"},

		{"no access key id", func(c *oss.Config) { c.AccessKeyID = "" }, oss.ErrCredentials, "OSS_ACCESS_KEY_ID_FILE"},
		{"no access key secret", func(c *oss.Config) { c.AccessKeySecret = "" }, oss.ErrCredentials, "OSS_ACCESS_KEY_SECRET_FILE"},
		{"access key id with a line break", func(c *oss.Config) { c.AccessKeyID = "hunter2\n" }, oss.ErrCredentials, "line break"},
		{"secret with a space", func(c *oss.Config) { c.AccessKeySecret = "hunter2 " }, oss.ErrCredentials, "line break"},
		{"session token with a line break", func(c *oss.Config) { c.SessionToken = "hunter\n2" }, oss.ErrCredentials, "OSS_SESSION_TOKEN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := goodConfig()
			tt.change(&cfg)
			p, err := oss.New(cfg)
			if p != nil {
				t.Error("a client was returned")
			}
			checkMistakes(t, err, tt.says, tt.rule)
		})
	}
}

func TestConfigMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := oss.New(oss.Config{Region: "oss-cn-hangzhou", Endpoint: "ftp://x", Internal: true, SessionToken: "a b"})
	checkMistakes(t, err, "", oss.ErrRegion, oss.ErrEndpoint, oss.ErrEndpoint,
		oss.ErrCredentials, oss.ErrCredentials, oss.ErrCredentials)
}

// checkMistakes checks that err joins exactly one fault for each rule, in order, each one line
// long, and that it holds none of the tests' secrets.
func checkMistakes(t *testing.T, err error, says string, rules ...error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	mistakes := fault.Of(err)
	if len(mistakes) != len(rules) {
		t.Fatalf("%d mistakes, want %d:\n%v", len(mistakes), len(rules), err)
	}
	for i, mistake := range mistakes {
		if mistake.Field == "" || !errors.Is(mistake, rules[i]) {
			t.Errorf("mistake %v, want the rule %v", mistake, rules[i])
		}
		if strings.Contains(mistake.Error(), "\n") {
			t.Errorf("mistake with several lines: %q", mistake)
		}
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("error %q does not say %q", err, says)
	}
	if strings.Contains(err.Error(), "hunter") {
		t.Errorf("error holds a secret: %q", err)
	}
}

// TestReload checks that temporary credentials that have expired, or may have, are read again,
// and no others.
func TestReload(t *testing.T) {
	t.Parallel()
	past, later := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name   string
		token  string
		end    time.Time
		fresh  oss.Config
		broken error
		want   string // the session token that signs; "" means an error
	}{
		{"expired", "old", past, oss.Config{AccessKeyID: "ak", AccessKeySecret: "sk", SessionToken: "new", SessionExpires: later}, nil, "new"},
		{"perhaps expired", "old", time.Time{}, oss.Config{AccessKeyID: "ak", AccessKeySecret: "sk", SessionToken: "new"}, nil, "new"},
		{"valid", "old", later, oss.Config{AccessKeyID: "ak", AccessKeySecret: "sk", SessionToken: "new"}, nil, "old"},
		{"expired, and nothing to read", "old", past, oss.Config{}, errors.New("gone"), ""},
		{"expired, and half a key", "old", past, oss.Config{AccessKeyID: "ak", SessionToken: "new"}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := goodConfig()
			cfg.SessionToken, cfg.SessionExpires = tt.token, tt.end
			cfg.Reload = func() (oss.Config, error) { return tt.fresh, tt.broken }
			client, err := oss.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := client.Put(t.Context(), goodPut())
			if tt.want == "" {
				if !errors.Is(err, oss.ErrCredentials) {
					t.Errorf("error %v", err)
				}
				return
			}
			if u, parsed := url.Parse(signed.URL); err != nil || parsed != nil || u.Query().Get("x-oss-security-token") != tt.want {
				t.Errorf("signed %s, %v", signed.URL, err)
			}
		})
	}
}

package ossemu

import (
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/callbackspec"
	"upcall/internal/testing/wait"
)

// subscriber answers pushes with these statuses in turn, the last one again and again.
func subscriber(t *testing.T, statuses ...int) *receiver {
	t.Helper()
	var mu sync.Mutex
	return receive(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		status := statuses[0]
		statuses = statuses[min(1, len(statuses)-1):]
		mu.Unlock()
		w.WriteHeader(status)
	})
}

func notifying(to *receiver, change ...func(*Config)) func(*Config) {
	return func(c *Config) {
		c.NotifyURL = to.url + "/oss/notify?x=1"
		for _, f := range change {
			f(c)
		}
	}
}

// pushed waits for n pushes about an object and returns them as they are listed.
func pushed(t *testing.T, base, object string, n int) []Delivery {
	t.Helper()
	var list []Delivery
	wait.Until(t, fmt.Sprintf("%d pushes about %s", n, object), func() bool {
		list = nil
		if err := json.Unmarshal([]byte(fetch(t, base+"/_ossemu/notifications?object="+object).body), &list); err != nil {
			t.Fatal(err)
		}
		return len(list) >= n
	})
	if len(list) > n {
		t.Fatalf("%d pushes about %s, want %d", len(list), object, n)
	}
	return list
}

// verifiedSHA1 checks a push's signature the other way round than it was made.
func verifiedSHA1(key *rsa.PublicKey, authorization, text string) bool {
	signature, err := base64.StdEncoding.DecodeString(authorization)
	if err != nil || len(signature) != 64 {
		return false
	}
	block := new(big.Int).Exp(new(big.Int).SetBytes(signature), big.NewInt(int64(key.E)), key.N)
	sum := sha1.Sum([]byte(text))
	return fmt.Sprintf("%0128x", block) == "0001"+strings.Repeat("ff", 26)+"00"+"3021300906052b0e03021a05000414"+hex.EncodeToString(sum[:])
}

func decoded(t *testing.T, text string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return string(b)
}

// TestNotificationFormats reads what arrives in each format, and checks its signature.
func TestNotificationFormats(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 891e6, time.UTC)
	for format, read := range map[string]func(*testing.T, received) notification{
		"": func(t *testing.T, r received) (n notification) {
			if err := xml.Unmarshal([]byte(r.body), &n); err != nil || !strings.HasPrefix(r.body, "<?xml") || n.XMLName.Space != mnsNamespace {
				t.Errorf("%v\n%s", err, r.body)
			}
			return n
		},
		NotifyJSON: func(t *testing.T, r received) (n notification) {
			if err := json.Unmarshal([]byte(r.body), &n); err != nil {
				t.Errorf("%v\n%s", err, r.body)
			}
			return n
		},
		NotifySimplified: func(_ *testing.T, r received) notification {
			return notification{Message: r.body, TopicOwner: r.header.Get("x-mns-topic-owner"), TopicName: r.header.Get("x-mns-topic-name"),
				MessageID: r.header.Get("x-mns-message-id"), MessageMD5: upperMD5(r.body), PublishTime: r.header.Get("x-mns-publish-time")}
		},
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			calls, sub := receive(t, nil), subscriber(t, 204)
			_, base := start(t, notifying(sub, func(c *Config) {
				c.NotifyFormat, c.NotifyTopic, c.Now = format, "59/uploads-1", func() time.Time { return at }
			}))
			w := newWire("PUT", base, "a b/ü<&>.txt")
			w.at, w.body = at, strings.NewReader("hello")
			w.header.Set("x-oss-callback", encode(t, callbackspec.Parameter{URLs: []string{calls.url}, Body: "a=${x:uid}"}))
			w.header.Set("x-oss-callback-var", base64.StdEncoding.EncodeToString([]byte(`{"x:uid":"u<1","x:token":"t"}`)))
			answer := send(t, w.presigned(t))
			if answer.status != 200 || decoded(t, answer.header.Get("x-oss-event-status")) != `{"Result":"Ok"}` {
				t.Fatalf("%d %s %v", answer.status, answer.body, answer.header)
			}
			listed := pushed(t, base, "", 1)[0]
			got := sub.requests()[0]
			if got.method != "POST" || got.target != "/oss/notify?x=1" || listed.Status != 204 || listed.Error != "" || listed.Attempt != 1 {
				t.Errorf("%s %s; listed %+v", got.method, got.target, listed)
			}
			h := got.header
			if url := decoded(t, h.Get("x-mns-signing-cert-url")); url != base+PublicKeyPath || h.Get("Content-MD5") != upperMD5(got.body) ||
				h.Get("Date") != "Wed, 04 Mar 2026 05:06:07 GMT" || h.Get("x-mns-version") != "2015-06-06" || len(h.Get("x-mns-request-id")) != 24 {
				t.Errorf("key at %s; %v", url, h)
			}
			if !verifiedSHA1(publicKey(t, base), h.Get("Authorization"), pushToSign(got.target, h)) {
				t.Errorf("the signature is not over\n%s", pushToSign(got.target, h))
			}
			n := read(t, got)
			if n.TopicOwner != "59" || n.TopicName != "uploads-1" || n.PublishTime != strconv.FormatInt(at.UnixMilli(), 10) ||
				n.MessageID == "" || n.MessageID != h.Get("x-mns-message-id") || n.MessageMD5 != upperMD5(n.Message) {
				t.Errorf("%+v", n)
			}
			want := `{"events":[{"eventName":"ObjectCreated:PutObject","eventSource":"acs:oss","eventTime":"2026-03-04T05:06:07.891Z",` +
				`"eventVersion":"1.0","oss":{"bucket":{"arn":"acs:oss:cn-hangzhou:1000000000000001:demo","name":"demo",` +
				`"ownerIdentity":"1000000000000001","virtualBucket":""},"object":{"deltaSize":5,"eTag":"5D41402ABC4B2A76B9719D911017C592",` +
				`"key":"a b/ü<&>.txt","size":5},"ossSchemaVersion":"1.0","ruleId":"ossemu"},"region":"cn-hangzhou",` +
				`"requestParameters":{"sourceIPAddress":"127.0.0.1"},"responseElements":{"requestId":"` + answer.header.Get("x-oss-request-id") +
				`"},"userIdentity":{"principalId":"1000000000000001"},"xVars":{"x:token":"t","x:uid":"u<1"}}]}`
			if d := cmp.Diff(want, decoded(t, n.Message)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestPushToSign holds the string to sign against that of a genuine push of 2023-03-29.
func TestPushToSign(t *testing.T) {
	t.Parallel()
	genuine := "POST\n4CCBAD7AF2D23C2D00DDECCA59323A8C\ntext/plain;charset=utf-8\nWed, 29 Mar 2023 08:41:27 GMT\n" +
		"x-mns-message-id:250EB49D5F8D737A391C93C6ED165396\nx-mns-publish-time:1680079287576\nx-mns-request-id:6423F9B7BF94313030AF5EA0\n" +
		"x-mns-signing-cert-url:aHR0cHM6Ly9tbnN0ZXN0Lm9zcy1jbi1oYW5nemhvdS5hbGl5dW5jcy5jb20veDUwOV9wdWJsaWNfY2VydGlmaWNhdGUucGVt\n" +
		"x-mns-subscriber:1321669497458181\nx-mns-subscription-name:mns-en-subs-oss-fecdn-internal-pre-1-22849529855680\n" +
		"x-mns-topic-name:mns-en-topics-oss-fecdn-internal-pre-22849529792243\nx-mns-topic-owner:1321669497458181\n" +
		"x-mns-version:2015-06-06\n/notifications"
	lines := strings.Split(genuine, "\n")
	h := http.Header{"Content-Md5": {lines[1]}, "Content-Type": {"Text/Plain;charset=UTF-8"}, "Date": {lines[3]}, "Host": {"x"}}
	for _, line := range lines[4 : len(lines)-1] {
		name, value, _ := strings.Cut(line, ":")
		h.Set(name, value)
	}
	if d := cmp.Diff(genuine, pushToSign("/notifications", h)); d != "" {
		t.Error(d)
	}
}

// TestNotifiedEvents holds which requests are notified of, and of what.
func TestNotifiedEvents(t *testing.T) {
	t.Parallel()
	sub := subscriber(t, 204)
	_, base := start(t, notifying(sub))
	put := func(key, content string) reply {
		w := newWire("PUT", base, key)
		w.body = strings.NewReader(content)
		return send(t, w.presigned(t))
	}
	type row struct {
		Name, Key, ETag, XVars string
		Size, Delta            int64
	}
	next := 0
	expect := func(what string, answer reply, notified bool, want ...row) {
		t.Helper()
		if answer.status >= 300 || (answer.header.Get("x-oss-event-status") != "") != notified {
			t.Errorf("%s: %d %v %s", what, answer.status, answer.header, answer.body)
		}
		var got []row
		for _, d := range pushed(t, base, "", next+len(want))[next:] {
			var m struct {
				Events []struct {
					EventName string
					OSS       struct {
						Object struct {
							DeltaSize, Size int64
							ETag, Key       string
						}
					}
					ResponseElements struct{ RequestID string }
					XVars            json.RawMessage
				}
			}
			if err := json.Unmarshal(d.Message, &m); err != nil || len(m.Events) != 1 {
				t.Fatalf("%s: %v: %s", what, err, d.Message)
			}
			e := m.Events[0]
			if e.ResponseElements.RequestID != answer.header.Get("x-oss-request-id") || d.RequestID != e.ResponseElements.RequestID {
				t.Errorf("%s: request %+v", what, d)
			}
			o := e.OSS.Object
			got = append(got, row{e.EventName, o.Key, o.ETag, string(e.XVars), o.Size, o.DeltaSize})
		}
		next += len(want)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
	}
	const x = "9DD4E461268C8034F5C8564E155C67A6"
	etag := func(r reply) string { return strings.Trim(r.header.Get("ETag"), `"`) }
	expect("put", put("a", "x"), true, row{"ObjectCreated:PutObject", "a", x, "", 1, 1})
	over := put("a", "yyy")
	expect("overwrite", over, true, row{"ObjectCreated:PutObject", "a", etag(over), "", 3, 2})
	f := newForm(base)
	f.fields = append(f.fields, [2]string{"callback", callbackTo(receive(t, nil).url)}, [2]string{"x:uid", "7"})
	posted := send(t, f.request(t))
	expect("post", posted, true, row{"ObjectCreated:PostObject", "k", etag(posted), `{"x:uid":"7"}`, 5, 5})
	id := initiate(t, base, "big")
	part := uploadPart(t, base, "big", id, "1", "xyz")
	done := complete(t, base, "big", id, partList("1", part.header.Get("ETag")))
	expect("multipart", done, true, row{"ObjectCreated:CompleteMultipartUpload", "big", etag(done), "", 3, 3})
	expect("delete", send(t, newWire("DELETE", base, "a").presigned(t)), true, row{"ObjectRemoved:DeleteObject", "a", etag(over), "", 3, -3})
	expect("delete again", send(t, newWire("DELETE", base, "a").presigned(t)), false)
	put("b", "x")
	pushed(t, base, "", next+1)
	next++
	expect("delete many", at(t, base, "POST", testBucket, "delete", deleteDocument("b", "a")), true,
		row{"ObjectRemoved:DeleteObjects", "b", x, "", 1, -1})
}

// TestPushAgain holds how often a push is repeated, and how long after.
func TestPushAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		statuses []int
		want     int
	}{
		"taken": {[]int{204}, 1}, "200 is not taken": {[]int{200, 500, 204}, 3}, "never": {[]int{503}, 4}, "redirect": {[]int{307, 204}, 2},
		"last": {[]int{500, 500, 500, 204}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var pauses []time.Duration
			sub := subscriber(t, tc.statuses...)
			_, base := start(t, notifying(sub, func(c *Config) {
				c.After = func(d time.Duration) <-chan time.Time {
					mu.Lock()
					defer mu.Unlock()
					pauses = append(pauses, d)
					return time.After(0)
				}
			}))
			w := newWire("PUT", base, "k")
			w.body = strings.NewReader("x")
			send(t, w.presigned(t))
			list := pushed(t, base, "k", tc.want)
			ids := make(map[string]bool)
			for i, d := range list {
				ids[d.Header["x-mns-request-id"][0]] = true
				if d.Attempt != i+1 || d.Header["x-mns-message-id"][0] != list[0].Header["x-mns-message-id"][0] || d.Body != list[0].Body {
					t.Errorf("attempt %d: %+v", i+1, d)
				}
				if last := i == len(list)-1; (d.Error == "") != (last && name != "never") {
					t.Errorf("attempt %d: %d %q", i+1, d.Status, d.Error)
				}
			}
			if len(ids) != tc.want || len(pauses) != tc.want-1 {
				t.Errorf("requests %v, pauses %v", ids, pauses)
			}
			for _, d := range pauses {
				if d < 10*time.Second || d > 20*time.Second {
					t.Errorf("pause %s", d)
				}
			}
		})
	}
}

// TestPushUnanswered holds that a receiver that does not answer within the time is asked again.
func TestPushUnanswered(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var calls atomic.Int32
	sub := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			<-release
		}
		w.WriteHeader(204)
	})
	defer close(release)
	_, base := start(t, notifying(sub, func(c *Config) {
		c.CallbackTimeout = 100 * time.Millisecond
		c.After = func(time.Duration) <-chan time.Time { return time.After(0) }
	}))
	w := newWire("PUT", base, "k")
	w.body = strings.NewReader("x")
	send(t, w.presigned(t))
	if list := pushed(t, base, "k", 2); list[0].Status != 0 || list[0].Error == "" || list[1].Status != 204 {
		t.Errorf("%d %q, %d", list[0].Status, list[0].Error, list[1].Status)
	}
}

func TestNotifyConfig(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"scheme":       func(c *Config) { c.NotifyURL = "ftp://h/x" },
		"no host":      func(c *Config) { c.NotifyURL = "/oss/notify" },
		"fragment":     func(c *Config) { c.NotifyURL = "http://h/#x" },
		"no owner":     func(c *Config) { c.NotifyTopic = "topic" },
		"owner's name": func(c *Config) { c.NotifyTopic = "me/topic" },
		"deep topic":   func(c *Config) { c.NotifyTopic = "1/a/b" },
		"format":       func(c *Config) { c.NotifyFormat = "xml" },
		"negative":     func(c *Config) { c.NotifyDelay = -1 },
		"long":         func(c *Config) { c.NotifyDelay = 25 * time.Hour },
	} {
		cfg := Config{AccessKeyID: "i", AccessKeySecret: "s", Region: testRegion, Buckets: []string{"demo"}}
		change(&cfg)
		if err := cfg.Check(); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

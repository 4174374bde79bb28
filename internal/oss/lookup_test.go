package oss_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/oss"
	"upcall/internal/testing/ossfake"
)

// clientAt returns a client for an emulator, or what plays one.
func clientAt(t *testing.T, endpoint string) *oss.Client {
	t.Helper()
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: endpoint, PathStyle: true,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// store makes an object whose content is its key.
func store(t *testing.T, client *oss.Client, key string) {
	t.Helper()
	s, err := client.Stream(t.Context(), oss.Object{Bucket: ossfake.Bucket, Key: key, ContentType: "text/x-test"})
	if err == nil {
		if _, err = s.Write([]byte(key)); err == nil {
			err = s.Commit(t.Context())
		}
	}
	if err != nil {
		t.Fatalf("store %q: %v", key, err)
	}
}

// oddKeys are in the order of their bytes.
var oddKeys = []string{"\t", "&<>", "a", "a b+c%20", "a//b", "b/\x01\x7f", "b/c", "b/ä", "b/上", "b/😀", "c"}

func TestList(t *testing.T) {
	t.Parallel()
	client := clientAt(t, ossfake.Start(t))
	for _, key := range oddKeys {
		store(t, client, key)
	}
	for name, tt := range map[string]struct {
		prefix, after string
		want          []string
	}{
		"all":                {"", "", oddKeys},
		"prefix":             {"b/", "", oddKeys[5:10]},
		"after":              {"", "a", oddKeys[3:]},
		"prefix and after":   {"b/", "b/\x01\x7f", oddKeys[6:10]},
		"after what is not":  {"", "a0", oddKeys[5:]},
		"after other bytes":  {"b/", "b/上", oddKeys[9:10]},
		"nothing":            {"z", "", nil},
		"after all":          {"", "z", nil},
		"before the prefix":  {"b/", "a", oddKeys[5:10]},
		"prefix of one byte": {"c", "", oddKeys[10:]},
	} {
		for _, limit := range []int{0, 1, 2, 1000, 5000} {
			var got []string
			for after, more := tt.after, true; more; {
				page, err := client.List(t.Context(), oss.Listing{Bucket: ossfake.Bucket, Prefix: tt.prefix, After: after, Limit: limit})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if limit > 0 && len(page.Objects) > limit {
					t.Errorf("%s: %d objects on a page of %d", name, len(page.Objects), limit)
				}
				for _, o := range page.Objects {
					got = append(got, o.Key)
					after = o.Key
					if o.Size != int64(len(o.Key)) || len(o.ETag) != 32 || strings.ToUpper(o.ETag) != o.ETag ||
						time.Since(o.LastModified) > time.Minute || o.LastModified.Location() != time.UTC {
						t.Errorf("%s: %+v", name, o)
					}
				}
				more = page.More
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s, pages of %d (-want +got):\n%s", name, limit, diff)
			}
		}
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	client := clientAt(t, ossfake.Start(t))
	for _, key := range oddKeys {
		store(t, client, key)
		got, err := client.Head(t.Context(), ossfake.Bucket, key)
		if err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		page, err := client.List(t.Context(), oss.Listing{Bucket: ossfake.Bucket, Prefix: key, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got.Size != int64(len(key)) || got.ETag != page.Objects[0].ETag || got.CRC64 == nil || got.ContentType != "text/x-test" ||
			!got.LastModified.Equal(page.Objects[0].LastModified.Truncate(time.Second)) {
			t.Errorf("%q: %+v, listed as %+v", key, got, page.Objects[0])
		}
	}
	// CRC-64/XZ of "a", which several tools agree on.
	if got, err := client.Head(t.Context(), ossfake.Bucket, "a"); err != nil || *got.CRC64 != 0x330284772e652b05 ||
		got.ETag != "0CC175B9C0F1B6A831C399E269772661" {
		t.Errorf("a: %+v, %v", got, err)
	}
	for _, key := range []string{"none", "a/", "b"} {
		if _, err := client.Head(t.Context(), ossfake.Bucket, key); !errors.Is(err, oss.ErrNoObject) {
			t.Errorf("%s: %v, want ErrNoObject", key, err)
		}
	}
	if _, err := client.Head(t.Context(), "nobucket", "a"); err == nil || errors.Is(err, oss.ErrNoObject) ||
		!strings.Contains(err.Error(), "NoSuchBucket") {
		t.Errorf("no bucket: %v", err)
	}
}

// TestLookupAnswers has what only OSS itself answers, as its documents have it.
func TestLookupAnswers(t *testing.T) {
	t.Parallel()
	const body = `<?xml version="1.0"?><Error><Code>%s</Code><Message>m</Message><RequestId>r</RequestId></Error>`
	for name, tt := range map[string]struct {
		status            int
		code              string
		delay             string // header
		throttled, noHead bool   // noHead: Head says that there is no object
		wantDelay         time.Duration
	}{
		"requests": {status: 503, code: "TotalQpsLimitExceeded", throttled: true},
		"with a delay": {status: 503, code: "TotalQpsLimitExceeded", delay: "1500", throttled: true,
			wantDelay: 1500 * time.Millisecond},
		"with no number":      {status: 503, code: "TotalQpsLimitExceeded", delay: "soon", throttled: true},
		"with a negative one": {status: 503, code: "TotalQpsLimitExceeded", delay: "-5", throttled: true},
		"other throttling":    {status: 503, code: "DownloadTrafficRateLimitExceeded", throttled: true},
		"too many requests":   {status: 429, code: "x", throttled: true},
		"a broken server":     {status: 500, code: "InternalError"},
		"forbidden":           {status: 403, code: "AccessDenied"},
		"no object":           {status: 404, code: "NoSuchKey", noHead: true},
		"no bucket":           {status: 404, code: "NoSuchBucket"},
	} {
		var requests atomic.Int64
		client := clientAt(t, ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			if tt.delay != "" {
				w.Header().Set("x-oss-qos-delay-time", tt.delay)
			}
			w.WriteHeader(tt.status)
			if r.Method != http.MethodHead {
				fmt.Fprintf(w, body, tt.code)
			}
		})))
		_, listErr := client.List(t.Context(), oss.Listing{Bucket: "demo"})
		_, headErr := client.Head(t.Context(), "demo", "key")
		for call, err := range map[string]error{"list": listErr, "head": headErr} {
			answer, ok := errors.AsType[*oss.ServiceError](err)
			if !ok || answer.Status != tt.status || answer.Delay != tt.wantDelay || errors.Is(err, oss.ErrThrottled) != tt.throttled {
				t.Errorf("%s, %s: %v", name, call, err)
			}
			if strings.ContainsAny(fmt.Sprint(err), "\n") {
				t.Errorf("%s, %s: several lines: %v", name, call, err)
			}
		}
		// An answer to HEAD without OSS's header has no code: a bucket that is not there is not told apart.
		if errors.Is(headErr, oss.ErrNoObject) != (tt.status == 404) || errors.Is(listErr, oss.ErrNoObject) != tt.noHead {
			t.Errorf("%s: no object: %v, %v", name, listErr, headErr)
		}
		if got := requests.Load(); got != 2 {
			t.Errorf("%s: %d requests for two calls", name, got)
		}
	}
}

// TestLookupHeldBack reads what OSS says of a request that it answered late.
func TestLookupHeldBack(t *testing.T) {
	t.Parallel()
	emulator := ossfake.NewEmulator(t)
	gate := ossfake.NewGate(t, emulator)
	client := clientAt(t, gate.URL)
	store(t, client, "a")
	gate.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
		w.Header().Set("x-oss-qos-delay-time", strconv.Itoa(250))
		serve.ServeHTTP(w, r)
	})
	page, err := client.List(t.Context(), oss.Listing{Bucket: ossfake.Bucket})
	if err != nil || page.Delay != 250*time.Millisecond || len(page.Objects) != 1 {
		t.Errorf("list: %+v, %v", page, err)
	}
	if head, err := client.Head(t.Context(), ossfake.Bucket, "a"); err != nil || head.Delay != 250*time.Millisecond {
		t.Errorf("head: %+v, %v", head, err)
	}
	if got := gate.Seen(); !slices.Equal(got, []string{"GET", "HEAD"}) {
		t.Errorf("requests: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.List(ctx, oss.Listing{Bucket: ossfake.Bucket}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

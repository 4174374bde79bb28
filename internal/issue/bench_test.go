package issue_test

import (
	"slices"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/issue"
	"upcall/internal/oss"
)

// BenchmarkIssue measures issuing an upload (callback documents, token, checks, signature)
// and, in the same run, the SDK's Presign of the same request, which gets all of that ready
// made. It reports the ratios of the two as x-sdk-time and x-sdk-allocs. Each upload gets new
// documents, a new token and a new signature. Only the HMACs of the token keys, which are set
// up once for each secret, are kept from one upload to the next.
func BenchmarkIssue(b *testing.B) {
	issuer, request := newIssuer(b, func(_ *oss.Config, c *issue.Config) { c.NewID = nil }), benchRequest()
	upload, _, err := issuer.Issue(b.Context(), request)
	if err != nil {
		b.Fatal(err)
	}
	client := sdk.NewClient(sdk.NewConfig().
		WithRegion("cn-hangzhou").
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider("ak", "sk")))
	sdk := func(b *testing.B) {
		_, err := client.Presign(b.Context(), &sdk.PutObjectRequest{
			Bucket:      sdk.Ptr(request.Object.Bucket),
			Key:         sdk.Ptr(request.Object.Key),
			ContentType: sdk.Ptr(request.Object.ContentType),
			Callback:    sdk.Ptr(upload.Headers["x-oss-callback"]),
			CallbackVar: sdk.Ptr(upload.Headers["x-oss-callback-var"]),
		}, sdk.PresignExpires(time.Hour))
		if err != nil {
			b.Fatal(err)
		}
	}
	whole := func(b *testing.B) {
		if _, _, err := issuer.Issue(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("sdk-presign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sdk(b)
		}
	})
	b.Run("issue", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			whole(b)
		}
	})
	// They take turns, and the median of each counts, so that other load on the machine
	// affects both alike.
	b.Run("ratio", func(b *testing.B) {
		var ours, theirs []time.Duration
		for b.Loop() {
			start := time.Now()
			sdk(b)
			theirs = append(theirs, time.Since(start))
			start = time.Now()
			whole(b)
			ours = append(ours, time.Since(start))
		}
		b.ReportMetric(float64(median(ours))/float64(median(theirs)), "x-sdk-time")
		b.ReportMetric(testing.AllocsPerRun(100, func() { whole(b) })/testing.AllocsPerRun(100, func() { sdk(b) }), "x-sdk-allocs")
	})
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func benchRequest() issue.Request {
	return issue.Request{
		Object:  oss.Object{Bucket: "demo", Key: "photos/2026/11/cat.jpg", ContentType: "image/jpeg"},
		Expires: time.Hour,
		Callback: &issue.CallbackSpec{
			URLs: []string{"https://uploads.example.com/oss/callback"},
			Vars: map[string]string{"uid": "42", "album": "cats"},
		},
	}
}

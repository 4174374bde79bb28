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

// BenchmarkIssue measures the whole of an issued upload (callback documents, token,
// checks, signature) and, on the same machine in the same run, the SDK's own Presign
// of the same request, for which all of that is given. It reports the ratios of the two
// as x-sdk-time and x-sdk-allocs. Each upload has its documents, token and signature made
// anew. What is kept from one to the next are the HMACs of the token keys, which are set
// up once for a secret.
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
	// In turns, and the median of each, so that whatever else the machine does hurts
	// none.
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

package intake

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/vectors"
)

// TestRecords checks the answer and the row, for both body types.
func TestRecords(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	for _, bodyType := range []callbackspec.BodyType{callbackspec.Form, callbackspec.JSON} {
		object := "dir/a b+c~é" + string(bodyType[len(bodyType)-4:])
		u := upload{bucket: "demo", object: object, reqID: "R1", vars: map[string]string{"uid": "42", "note": `a "b" & c`}}
		uploadID := u.mint(t, bodyType)
		request := o.request(t, s.Public, path, string(bodyType), u.body(t, bodyType))
		got := do(t, request)
		want := fmt.Sprintf(`{"status":"ok","event_id":%q,"upload_id":%q,"duplicate":false,"durable":"postgres"}`, got.EventID, uploadID)
		if got.Code != 200 || got.Raw != want {
			t.Errorf("%s: got %d %s, want 200 %s", bodyType, got.Code, got.Raw, want)
		}
		var row struct {
			Bucket, ObjectKey, ETag, MimeType, MD5, ClientIP, RequestID, Operation, CRC64, Source string
			Size                                                                                  int64
			Height, Width                                                                         *int32
			Format, VPC                                                                           *string
			UploadID                                                                              uuid.UUID
			ReceivedAt                                                                            time.Time
			Vars                                                                                  map[string]any
		}
		err := s.pool.QueryRow(t.Context(), `
			SELECT bucket, object_key, etag, mime_type, content_md5, host(client_ip), request_id, operation, crc64::text, source,
			       size, image_height, image_width, image_format, vpc_id, upload_id, received_at, vars
			FROM upcall.upload_events WHERE id = $1`, got.EventID).Scan(
			&row.Bucket, &row.ObjectKey, &row.ETag, &row.MimeType, &row.MD5, &row.ClientIP, &row.RequestID, &row.Operation, &row.CRC64,
			&row.Source,
			&row.Size, &row.Height, &row.Width, &row.Format, &row.VPC, &row.UploadID, &row.ReceivedAt, &row.Vars)
		if err != nil {
			t.Fatal(err)
		}
		wantRow := row
		wantRow.Bucket, wantRow.ObjectKey, wantRow.ETag = "demo", object, "D8E8FCA2DC0F896FD7CB4CB0031BA249"
		wantRow.MimeType, wantRow.MD5, wantRow.ClientIP = "text/plain", "2Oj8otwPiW/Xy0ywAxuiSQ==", "203.0.113.7"
		wantRow.RequestID, wantRow.Operation, wantRow.CRC64, wantRow.Source = "R1", "PutObject", "18446744073709551615", "callback"
		wantRow.Size, wantRow.Height, wantRow.Width, wantRow.Format, wantRow.VPC = 5, nil, nil, nil, nil
		wantRow.UploadID, wantRow.ReceivedAt = uploadID, row.ReceivedAt
		wantRow.Vars = map[string]any{"uid": "42", "note": `a "b" & c`}
		if diff := cmp.Diff(wantRow, row); diff != "" || !row.ReceivedAt.Equal(noon) {
			t.Errorf("%s: row (-want +got):\n%s", bodyType, diff)
		}
	}
}

// TestRecordsWithoutBucketOrObject checks that a verified callback is recorded without them.
func TestRecordsWithoutBucketOrObject(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	_, token := mint(t, "demo", "a.txt", noon.Add(time.Hour))
	for _, tt := range []struct {
		name, header string
		want         *string
	}{
		{"with the header", "demo", new("demo")},
		{"without the header", "", nil},
	} {
		r := o.request(t, s.Public, path, string(callbackspec.Form), "reqId="+uuid.NewString()+"&upcall_token="+token)
		r.Header.Set("X-Oss-Bucket", tt.header)
		got := do(t, r)
		if got.Code != 200 {
			t.Errorf("%s: got %d %s", tt.name, got.Code, got.Raw)
			continue
		}
		var bucket, object *string
		const query = "SELECT bucket, object_key FROM upcall.upload_events WHERE id = $1"
		if err := s.pool.QueryRow(t.Context(), query, got.EventID).Scan(&bucket, &object); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, bucket); diff != "" || object != nil {
			t.Errorf("%s: object %v, bucket (-want +got):\n%s", tt.name, object, diff)
		}
	}
}

// TestPathsOfOthers checks the callback URLs of other receivers: several paths, parameters in
// them, a query, and a template without a request id.
func TestPathsOfOthers(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, func(c *Config) {
		c.Admission.TokenPolicy = admission.TokenOff
		c.Admission.CallbackPaths = []string{path, "/callback/oss/:session/:key", "/hooks/*"}
	})
	for target, want := range map[string]string{
		path:                            `{}`,
		path + "?id=1&index=2":          `{"id": "1", "index": "2"}`,
		"/callback/oss/s1/k1?authid=1a": `{"authid": "1a"}`,
		"/hooks/a/b":                    `{}`,
		path + "/":                      "",
		"/callback/oss/s1":              "",
	} {
		r := o.request(t, s.Public, target, string(callbackspec.Form), "bucket=demo&object=a.txt&size=5\n")
		r.Header.Set("X-Oss-Request-Id", "5C3D9175B6FC201293AD0001")
		got := do(t, r)
		if want == "" {
			if got.Code != http.StatusNotFound {
				t.Errorf("%s: got %d %s", target, got.Code, got.Raw)
			}
			continue
		}
		if got.Code != http.StatusOK {
			t.Errorf("%s: got %d %s", target, got.Code, got.Raw)
			continue
		}
		var vars, requestID string
		const query = "SELECT vars::text, request_id FROM upcall.upload_events WHERE id = $1"
		if err := s.pool.QueryRow(t.Context(), query, got.EventID).Scan(&vars, &requestID); err != nil {
			t.Fatal(err)
		}
		if vars != want || requestID != "5C3D9175B6FC201293AD0001" {
			t.Errorf("%s: vars %s, request id %s; want %s and the header's", target, vars, requestID, want)
		}
	}
}

// TestGenuineVectors sends callbacks that OSS signed to a running service.
func TestGenuineVectors(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	pool := dbtest.Pool(t, eventstore.Open)
	genuine, refused := 0, 0
	for _, v := range vectors.Load(t) {
		callbackPath, _, _ := strings.Cut(v.Target, "?")
		if v.KeyServer != nil || (admission.Config{CallbackPaths: []string{callbackPath}, TokenPolicy: admission.TokenOff}).Check() != nil {
			continue // not OSS's key, or a path that receivers cannot be configured with
		}
		blank := func(s string) bool { return strings.TrimSpace(s) != s }
		if slices.ContainsFunc([]string{v.Authorization, v.PubKeyURL, v.SignatureVersion}, blank) {
			continue // HTTP trims spaces around a value
		}
		s := serve(t, o, pool, func(c *Config) {
			c.Admission.TokenPolicy, c.Admission.CallbackPaths = admission.TokenOff, []string{callbackPath}
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Public+v.Target, strings.NewReader(v.Body))
		if err != nil {
			continue // clients do not send such a target
		}
		for name, value := range v.Headers {
			r.Header.Set(name, value)
		}
		r.Header.Set("Content-Type", v.ContentType)
		r.Header.Set("Authorization", v.Authorization)
		r.Header.Set("X-Oss-Pub-Key-Url", v.PubKeyURL)
		r.Header.Set("X-Oss-Signature-Version", v.SignatureVersion)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			continue // clients do not send such a header
		}
		switch got := readAnswer(t, response); {
		case (v.Expect == "ok") != (got.Code == 200):
			t.Errorf("%s: got %d %s, want %s", v.ID, got.Code, got.Raw, v.Expect)
		case got.Code != 200:
			refused++
		case !got.Duplicate: // some are other spellings of the same callback
			genuine++
		}
	}
	if genuine < 4 || refused < 80 {
		t.Errorf("%d genuine and %d refused vectors went through; want at least 4 and 80", genuine, refused)
	}
	if n := count(t, pool); n != genuine {
		t.Errorf("%d rows for %d genuine callbacks", n, genuine)
	}
}

// TestParallelCopies checks that copies of a callback through several receivers have one row.
func TestParallelCopies(t *testing.T) {
	t.Parallel()
	const copies = 2000
	o := newOSS(t)
	pool := dbtest.Pool(t, eventstore.Open)
	services := []*service{serve(t, o, pool, nil), serve(t, o, pool, nil)}
	body := issued(t, "a.txt", "R1").body(t, callbackspec.Form)
	// One connection for each request, as with OSS. A 503 is retried because the machine may
	// be slow.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answers := make([]answered, copies)
	places := make(chan struct{}, 64)
	var group sync.WaitGroup
	for i := range copies {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			for {
				response, err := client.Do(o.request(t, services[i%2].Public, path, string(callbackspec.Form), body))
				if err != nil {
					t.Error(err)
					return
				}
				if answers[i] = readAnswer(t, response); answers[i].Code != http.StatusServiceUnavailable {
					return
				}
			}
		})
	}
	group.Wait()
	first := 0
	for _, a := range answers {
		if a.Code != 200 || a.EventID != answers[0].EventID || *a.UploadID != *answers[0].UploadID {
			t.Fatalf("got %d %s, want the same ids as %s", a.Code, a.Raw, answers[0].Raw)
		}
		if !a.Duplicate {
			first++
		}
	}
	if n := count(t, pool); n != 1 || first != 1 {
		t.Errorf("%d rows, %d answers without duplicate; want 1 and 1", n, first)
	}
}

// TestLateRepeat checks that a repeat after the token has expired gets the first answer.
func TestLateRepeat(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	pool := dbtest.Pool(t, eventstore.Open)
	body := issued(t, "a.txt", "R1").body(t, callbackspec.Form)
	first := do(t, o.request(t, serve(t, o, pool, nil).Public, path, string(callbackspec.Form), body))
	later := serve(t, o, pool, func(c *Config) { c.Now = func() time.Time { return noon.AddDate(0, 0, 8) } })
	second := do(t, o.request(t, later.Public, path, string(callbackspec.Form), body))
	if second.Code != 200 || second.EventID != first.EventID || *second.UploadID != *first.UploadID || !second.Duplicate {
		t.Errorf("first %s, then %d %s", first.Raw, second.Code, second.Raw)
	}
}

// TestBehindProxy checks that the signature covers the path that OSS requested.
func TestBehindProxy(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, func(c *Config) { c.Admission.PublicURL = "https://hooks.example.com/upcall%20in/oss" })
	const public = "/upcall%20in/oss?tenant=7"
	u := upload{bucket: "demo", object: "a.txt", reqID: "R1", url: "https://hooks.example.com" + public}
	u.mint(t, callbackspec.Form)
	body := u.body(t, callbackspec.Form)
	r := o.request(t, s.Public, public, string(callbackspec.Form), body)
	r.URL.Path, r.URL.RawPath = path, "" // the proxy
	if got := do(t, r); got.Code != 200 {
		t.Errorf("got %d %s", got.Code, got.Raw)
	}
}

package issueapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/event"
	"upcall/internal/eventstore"
)

// goodBody is a request that the policy photos allows.
const goodBody = `{"bucket":"demo","key":"photos/web/cat.jpg","content_type":"image/jpeg","size":11,` +
	`"vars":{"uid":"42","album":"cats & dogs"},"expires_in":"15m"}`

// rawUpload is a request on the wire, for its host, key, length and body.
const rawUpload = "POST /v1/uploads HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n" +
	"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

func TestIssue(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	before := time.Now().Add(-time.Second)
	issued := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
	if issued.status != http.StatusCreated || issued.text("status") != "issued" ||
		issued.text("bucket") != "demo" || issued.text("key") != "photos/web/cat.jpg" {
		t.Fatalf("%d %s", issued.status, issued.raw)
	}
	if got := issued.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	// The row was committed before the answer.
	id := uuid.MustParse(issued.text("upload_id"))
	row, err := s.ledger.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if row.IssuedAt.Before(before) || row.IssuedAt.After(time.Now()) ||
		row.ExpiresAt.Sub(row.IssuedAt).Round(2*time.Second) != 15*time.Minute {
		t.Errorf("issued at %s until %s", row.IssuedAt, row.ExpiresAt)
	}
	if expires, err := time.Parse(time.RFC3339, issued.text("expires_at")); err != nil || !expires.Equal(row.ExpiresAt) {
		t.Errorf("expires_at %s, the row has %s (%v)", issued.text("expires_at"), row.ExpiresAt, err)
	}
	row.IssuedAt, row.ExpiresAt = time.Time{}, time.Time{}
	want := eventstore.IssuedStatus{Status: eventstore.StatusIssued, IssuedUpload: eventstore.IssuedUpload{
		ID: id, Bucket: "demo", Object: "photos/web/cat.jpg", ContentType: "image/jpeg", Size: new(int64(11)),
		Vars: map[string]string{"uid": "42", "album": "cats & dogs"}, APIKeyID: "web",
	}}
	if diff := cmp.Diff(want, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}

	// The URL works, with the headers of the answer and no others.
	put, err := http.NewRequestWithContext(t.Context(), issued.text("method"), issued.text("url"), strings.NewReader("hello world"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range issued.json["headers"].(map[string]any) {
		put.Header.Set(name, value.(string))
	}
	response, err := http.DefaultClient.Do(put)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNonAuthoritativeInfo { // 203: there is no receiver
		t.Errorf("the upload is answered with %s", response.Status)
	}
}

// TestVariablesAsOSSWritesThem: OSS's documentation writes x:uid.
func TestVariablesAsOSSWritesThem(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	body := strings.Replace(goodBody, `"uid"`, `"x:uid"`, 1)
	for _, path := range []string{"/v1/uploads", "/v1/uploads/multipart"} {
		issued := s.call(t, http.MethodPost, path, s.photos, body)
		vars, _ := issued.json["callback_var"].(map[string]any)
		if issued.status != http.StatusCreated || vars["x:uid"] != "42" {
			t.Errorf("%s: %d %s", path, issued.status, issued.raw)
		}
	}
}

// TestStates goes through the states of an upload.
func TestStates(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	recorder, err := eventstore.NewRecorder(eventstore.Config{Pool: dbtest.Beside(t, s.pool, eventstore.OpenRecorder)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(recorder.Close)
	issued := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody)
	path := "/v1/uploads/" + issued.text("upload_id")

	state := s.call(t, http.MethodGet, path, s.photos, "")
	if state.status != http.StatusOK || state.text("status") != "issued" || state.json["event"] != nil || state.json["revoked_at"] != nil ||
		state.text("bucket") != "demo" || state.text("key") != "photos/web/cat.jpg" ||
		state.text("expires_at") != issued.text("expires_at") {
		t.Errorf("issued: %d %s", state.status, state.raw)
	}

	recorded := &event.Event{
		ID: uuid.New(), ReceivedAt: time.Now(), UploadID: uuid.NullUUID{UUID: uuid.MustParse(issued.text("upload_id")), Valid: true},
		Callback: callbackspec.Callback{
			Bucket: "demo", Object: "photos/web/cat.jpg", ETag: "D8E8", Size: new(int64(11)), MimeType: "image/jpeg",
			ImageWidth: new(int32(3)), ImageHeight: new(int32(4)), ImageFormat: "jpg",
			CRC64: new(uint64(18446744073709551615)), ContentMD5: "2Oj8otwPiW/Xy0ywAxuiSQ==",
			ClientIP: netip.MustParseAddr("203.0.113.7"), RequestID: "5C3D", Operation: "PutObject",
			Vars: map[string]json.RawMessage{"x:uid": json.RawMessage(`"42"`)},
		},
	}
	if _, err := recorder.Record(t.Context(), recorded); err != nil {
		t.Fatal(err)
	}
	state = s.call(t, http.MethodGet, path, s.photos, "")
	got, ok := state.json["event"].(map[string]any)
	if state.text("status") != "uploaded" || !ok {
		t.Fatalf("uploaded: %d %s", state.status, state.raw)
	}
	delete(got, "received_at")
	want := map[string]any{
		"event_id": recorded.ID.String(), "bucket": "demo", "object_key": "photos/web/cat.jpg", "etag": "D8E8", "size": 11.0,
		"mime_type": "image/jpeg", "image_width": 3.0, "image_height": 4.0, "image_format": "jpg", "crc64": "18446744073709551615",
		"content_md5": "2Oj8otwPiW/Xy0ywAxuiSQ==", "vpc_id": nil, "client_ip": "203.0.113.7", "request_id": "5C3D",
		"operation": "PutObject", "vars": map[string]any{"x:uid": "42"}, "source": "callback",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}

	for range 2 { // revoking again changes nothing
		state = s.call(t, http.MethodDelete, path, s.photos, "")
		if state.status != http.StatusOK || state.text("status") != "revoked" || state.text("revoked_at") == "" ||
			state.json["event"] == nil {
			t.Errorf("revoked: %d %s", state.status, state.raw)
		}
	}
	recorded.ID = uuid.New()
	if _, err := recorder.Record(t.Context(), recorded); !errors.Is(err, event.ErrRevoked) {
		t.Errorf("a callback of a revoked upload was recorded: %v", err)
	}

	if _, err := s.pool.Exec(t.Context(), "DELETE FROM upcall.revoked_uploads"); err != nil {
		t.Fatal(err)
	}
	// As retention does: the status is looked up among the ids.
	if _, err := s.pool.Exec(t.Context(), "DELETE FROM upcall.upload_events; DELETE FROM upcall.callback_ids"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), "UPDATE upcall.issued_uploads SET expires_at = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	if state = s.call(t, http.MethodGet, path, s.photos, ""); state.text("status") != "expired" {
		t.Errorf("expired: %d %s", state.status, state.raw)
	}
}

// TestForeignUploads checks that the answer for another key's upload is, in every byte, the
// one for an upload that does not exist.
func TestForeignUploads(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	id := s.call(t, http.MethodPost, "/v1/uploads", s.photos, goodBody).text("upload_id")
	commandLine := uuid.New()
	if err := s.ledger.Issue(t.Context(), eventstore.IssuedUpload{ID: commandLine, IssuedAt: time.Now(),
		ExpiresAt: time.Now().Add(time.Hour), Bucket: "demo", Object: "x"}); err != nil {
		t.Fatal(err)
	}
	never := s.call(t, http.MethodGet, "/v1/uploads/"+uuid.NewString(), s.films, "")
	if never.status != http.StatusNotFound || never.text("rule") != "upload" {
		t.Fatalf("%d %s", never.status, never.raw)
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		for name, id := range map[string]string{
			"another key's": id, "the command line's": commandLine.String(), "not a UUID": "cat", "multipart": "multipart",
			"in capitals": strings.ToUpper(id), "in braces": "%7B" + id + "%7D", "as a URN": "urn:uuid:" + id,
			"without hyphens": strings.ReplaceAll(id, "-", ""), "nil": uuid.Nil.String(),
			"NUL": id + "%00", "long": strings.Repeat("a", 4000),
		} {
			if got := s.call(t, method, "/v1/uploads/"+id, s.films, ""); got.status != never.status || got.raw != never.raw {
				t.Errorf("%s %s: %d %s", method, name, got.status, got.raw)
			}
		}
	}
	if state := s.call(t, http.MethodGet, "/v1/uploads/"+id, s.photos, ""); state.text("status") != "issued" {
		t.Errorf("another key has changed the upload: %s", state.raw)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	issued := s.call(t, http.MethodPost, "/v1/uploads", s.photos,
		`{"filename":"..\\my cat\ud800.png","content_type":"image/png","size":0,"vars":{"uid":"1"}}`)
	if issued.status != http.StatusCreated {
		t.Fatalf("%d %s", issued.status, issued.raw)
	}
	state := s.call(t, http.MethodGet, "/v1/uploads/"+issued.text("upload_id"), s.photos, "")
	key := state.text("key")
	if !strings.HasPrefix(key, "made/web/"+time.Now().UTC().Format("2006-01-")) || !strings.HasSuffix(key, "-my_cat_.png") {
		t.Errorf("key %q", key)
	}
	at, err := time.Parse(time.RFC3339, state.text("expires_at"))
	if d := time.Until(at); err != nil || d < 59*time.Minute || d > time.Hour {
		t.Errorf("expires in %s (%v)", d, err)
	}
}

package issue_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"upcall/internal/uploadtoken"
)

// TestIssueTemplate: fields of a template that hold what the issuer knows hold nothing else.
func TestIssueTemplate(t *testing.T) {
	t.Parallel()
	r := goodRequest()
	r.ContentLength = new(int64(5))
	r.Callback.Vars = map[string]string{"uid": "42"}
	r.Callback.Body = "filename=${object}&at=${bucket}/&len=${size}&sum=${etag}&user=${x:uid}"
	upload, _, err := newIssuer(t, nil).Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var vars map[string]string
	if err := json.Unmarshal(upload.CallbackVar, &vars); err != nil {
		t.Fatal(err)
	}
	const genuine = "filename=photos%2Fcat.jpg&at=demo/&len=5&sum=E&user=42&reqId=R"
	for _, tt := range []struct {
		old, new string
		want     error
	}{
		{"=R", "=S", nil},
		{"sum=E", "sum=F", nil},
		{"cat", "dog", uploadtoken.ErrForeignVars},
		{"demo", "other", uploadtoken.ErrForeignVars},
		{"len=5", "len=6", uploadtoken.ErrForeignVars},
		{"user=42", "user=1", uploadtoken.ErrForeignVars},
	} {
		says := uploadtoken.Callback{Fields: content(t, strings.Replace(genuine, tt.old, tt.new, 1))}
		if _, err := newKeyring(t).Check(vars["x:upcall_token"], says, time.Now()); !errors.Is(err, tt.want) {
			t.Errorf("%s for %s: %v, want %v", tt.new, tt.old, err, tt.want)
		}
	}
}

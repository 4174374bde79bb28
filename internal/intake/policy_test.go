package intake

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
)

func TestTokenPolicies(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	pool := dbtest.Pool(t, eventstore.Open)
	for _, tt := range []struct {
		policy admission.TokenPolicy
		body   string
		want   int
	}{
		{admission.TokenOptional, "bucket=demo&object=a.txt&reqId=O1", 200},
		{admission.TokenOptional, "bucket=demo&object=a.txt&reqId=O2&upcall_token=k1.AAAA", 403},
		{admission.TokenOff, "bucket=demo&object=a.txt&reqId=F1", 200},
		{admission.TokenOff, "bucket=demo&object=a.txt&reqId=F2&upcall_token=k1.AAAA", 200},
	} {
		s := serve(t, o, pool, func(c *Config) { c.Admission.TokenPolicy = tt.policy })
		got := do(t, o.request(t, s.Public, path, string(callbackspec.Form), tt.body))
		if got.Code != tt.want {
			t.Errorf("%s, %s: got %d %s, want %d", tt.policy, tt.body, got.Code, got.Raw, tt.want)
		}
		if got.Code == 200 && !strings.Contains(got.Raw, `"upload_id":null`) {
			t.Errorf("%s: %s names an upload id", tt.policy, got.Raw)
		}
	}
}

// TestTokensTurnedOn checks that callbacks recorded before are found again, before and after
// their token expires.
func TestTokensTurnedOn(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	pool := dbtest.Pool(t, eventstore.Open)
	body := issued(t, "a.txt", "R1").body(t, callbackspec.Form)
	send := func(change func(*Config)) answered {
		return do(t, o.request(t, serve(t, o, pool, change).Public, path, string(callbackspec.Form), body))
	}
	first := send(func(c *Config) { c.Admission.TokenPolicy = admission.TokenOff })
	for name, change := range map[string]func(*Config){
		"required":            func(*Config) {},
		"optional":            func(c *Config) { c.Admission.TokenPolicy = admission.TokenOptional },
		"required, and later": func(c *Config) { c.Now = func() time.Time { return noon.AddDate(0, 0, 8) } },
	} {
		if got := send(change); got.Code != http.StatusOK || got.EventID != first.EventID || !got.Duplicate {
			t.Errorf("%s: got %d %s, want a repeat of %s", name, got.Code, got.Raw, first.Raw)
		}
	}
	if n := count(t, pool); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

package capture

import (
	"encoding/json"
	"strings"
	"testing"

	"upcall/internal/doctor"
)

// TestShownHasNoSecret: what is shown of a request has its path, and nothing of its body, of headers that may be
// secrets, or of what the doctor says about either, however short that is.
func TestShownHasNoSecret(t *testing.T) {
	t.Parallel()
	const short, header = "hunter2", "proxy-key-9"
	long := strings.Repeat("Ab3", 30)
	c := &doctor.Capture{Method: "POST", Target: "/oss/callback?q=" + long, Body: []byte("password=" + short), Headers: []doctor.Header{
		{Name: "X-Proxy-Key", Value: header}, {Name: "Authorization", Value: "c2ln"},
		{Name: "User-Agent", Value: "agent " + header + " " + long}}}
	about := "what " + header + " was " + long
	r := &doctor.Report{
		Summary: about, Fix: about, Key: about, Notes: []string{about},
		Causes: []doctor.Cause{
			{Kind: doctor.BodyWhitespace, What: about, Fix: about, Received: "password=" + short, Signed: "password=" + short},
			{Kind: doctor.PathSlashes, What: about, Fix: about, Received: "/oss//callback", Signed: "/oss/callback?q=" + long},
		},
		Oddities: []doctor.Oddity{{Kind: doctor.BodyNUL, What: about, Fix: about}},
		Refusals: []doctor.Refusal{{What: about, Fix: about}},
	}
	shown := show(Entry{}, c, r)
	text, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{short, header, long, "c2ln"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%q is shown: %s", secret, text)
		}
	}
	if len(shown.Causes) != 2 || shown.Causes[1].Received != "/oss//callback" || len(shown.Headers) != 3 ||
		shown.Headers[0].Name != "X-Proxy-Key" {
		t.Errorf("too much is hidden: %s", text)
	}
}

// TestShownHasNoQueryValue: of a query the names are shown, and values only where it was changed, if they are short.
func TestShownHasNoQueryValue(t *testing.T) {
	t.Parallel()
	const key = "s3cr3t-key"
	query := "n=1&key=" + key + "&" + key + "&key%3D" + key + "%26n%3D1"
	c := &doctor.Capture{Method: "POST", Target: "/oss/callback?" + query, Headers: []doctor.Header{
		{Name: "X-Original-Uri", Value: "/api/oss/callback?" + query}, {Name: "X-Forwarded-Uri", Value: "/oss%253Fkey%253D" + key}}}
	r := &doctor.Report{Causes: []doctor.Cause{
		{Kind: doctor.QueryReordered, Received: query, Signed: "key=" + key + "&n=1"},
		{Kind: doctor.PathQueryMark, Fix: "set UPCALL_PUBLIC_URL=https://h/oss%3Fkey=" + key + ", or",
			Received: "/oss/callback?key=" + key},
		{Kind: doctor.TargetForm, Received: "oss/callback%3fkey=" + key, Signed: "/oss/callback"},
	}, Refusals: []doctor.Refusal{{What: "the request is for /oss?key=" + key + ", but the receiver answers at /oss/callback"}}}
	shown := show(Entry{}, c, r)
	text, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), key) {
		t.Errorf("%q is shown: %s", key, text)
	}
	for got, want := range map[string]string{
		shown.Target:             "/oss/callback?n=<masked>&key=<masked>&<masked>&key%3D<masked>",
		shown.Causes[0].Signed:   "key=<masked>&n=1",
		shown.Causes[1].Received: "/oss/callback?key=<masked>",
		shown.Causes[2].Signed:   "/oss/callback",
	} {
		if got != want {
			t.Errorf("shown as %q, want %q", got, want)
		}
	}
}

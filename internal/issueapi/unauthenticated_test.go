package issueapi

import (
	"net/http"
	"strings"
	"testing"

	"upcall/internal/apikey"
)

// routesWithKey are the method and the path of every route that needs a key.
var routesWithKey = [][2]string{
	{"POST", "/v1/uploads"}, {"POST", "/v1/uploads/multipart"}, {"GET", "/v1/uploads/x"}, {"DELETE", "/v1/uploads/x"},
}

// TestUnauthenticated tries every route of the API without a valid key, in every way.
func TestUnauthenticated(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	if err := s.keys.Revoke(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	unknown, _, err := apikey.New("nobody")
	if err != nil {
		t.Fatal(err)
	}
	same := func(id string) string { // the secret of web with another id
		return "upk_" + id + strings.TrimPrefix(s.photos, "upk_web")
	}
	headers := map[string][]string{
		"none":                 nil,
		"empty":                {""},
		"scheme alone":         {"Bearer"},
		"scheme and space":     {"Bearer "},
		"no scheme":            {s.photos},
		"Basic":                {"Basic " + s.photos},
		"two spaces":           {"Bearer  " + s.photos},
		"two headers":          {"Bearer " + s.photos, "Bearer " + s.photos},
		"two keys":             {"Bearer " + s.photos + ", Bearer " + s.photos},
		"no key":               {"Bearer null"},
		"key of something":     {"Bearer sk_live_0123456789"},
		"cut short":            {"Bearer " + s.photos[:len(s.photos)-1]},
		"one character more":   {"Bearer " + s.photos + "A"},
		"another secret":       {"Bearer " + forged(s.photos)},
		"another's secret":     {"Bearer " + same("app")},
		"unknown id":           {"Bearer " + unknown},
		"known secret, new id": {"Bearer " + same("nobody")},
		"revoked":              {"Bearer " + s.films},
		"SQL":                  {"Bearer upk_' OR 1=1 --_" + strings.Repeat("A", 43)},
	}
	answers := make(map[string]string)
	for name, values := range headers {
		for _, route := range routesWithKey {
			r := s.request(t, route[0], route[1], "", goodBody)
			if values != nil {
				r.Header["Authorization"] = values
			}
			got := s.do(t, r)
			if got.status != http.StatusUnauthorized || got.text("rule") != "api_key" {
				t.Errorf("%s, %v: %d %s", name, route, got.status, got.raw)
			}
			answers[name] = got.raw
		}
	}
	// A stranger learns nothing about ids.
	for _, name := range []string{"another's secret", "unknown id", "known secret, new id", "revoked"} {
		if answers[name] != answers["another secret"] {
			t.Errorf("%s: %s, and a wrong secret: %s", name, answers[name], answers["another secret"])
		}
	}
	if n := s.rows(t); n != 0 {
		t.Errorf("%d rows", n)
	}
	r := s.request(t, http.MethodPost, "/v1/uploads", "", goodBody)
	r.Header.Set("Authorization", "bEARER "+s.photos) // RFC 9110, section 11.1: schemes are read in any case
	if got := s.do(t, r); got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

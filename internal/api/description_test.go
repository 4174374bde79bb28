package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upcall/internal/hooks"
	"upcall/internal/testing/openapitest"
	"upcall/internal/webhook"
)

// document reads and validates openapi.yaml once.
var document = sync.OnceValues(func() (*openapitest.Description, error) { return openapitest.Read(openAPIDocument) })

func documentOf(t testing.TB) *openapitest.Description {
	t.Helper()
	d, err := document()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDescription compares openapi.yaml with the routes and the roles that they need, and with
// what bodies and problems may hold. Answers are compared wherever a test makes a call.
func TestDescription(t *testing.T) {
	t.Parallel()
	d := documentOf(t)
	var patterns []string
	for _, to := range (&Server{}).routes() {
		patterns = append(patterns, to.pattern)
		method, path, _ := strings.Cut(to.pattern, " ")
		var roles []string
		for _, need := range *d.Paths.Value(path).GetOperation(method).Security {
			roles = append(roles, need["apiKey"]...)
		}
		if strings.Join(roles, " ") != string(to.role) {
			t.Errorf("%s needs the role %q, and is described with %q", to.pattern, to.role, roles)
		}
	}
	d.CheckRoutes(t, patterns)
	d.CheckObjects(t)
	d.CheckEvent(t, map[string]bool{"supersedes": true})
	var labels []string
	for _, k := range []kind{
		kindMalformed, kindUnauthenticated, kindForbidden, kindNotFound, kindMethod, kindConflict, kindGone, kindTooLarge, kindMediaType,
		kindUnavailable, kindUnconfirmed, kindBehind,
	} {
		labels = append(labels, k.label)
	}
	d.CheckProblems(t, labels)
	described := func(name string) []string {
		return slices.Sorted(maps.Keys(d.Components.Schemas[name].Value.Properties))
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(changeMembers(new(hooks.Change)))), described("HookChange")); diff != "" {
		t.Errorf("members of a change (-read +described):\n%s", diff)
	}
	made := append(described("HookChange"), "from", "secret")
	slices.Sort(made)
	if diff := cmp.Diff(made, described("NewHook")); diff != "" {
		t.Errorf("members of a new endpoint (-read +described):\n%s", diff)
	}
	var kinds []any
	for _, k := range webhook.Kinds {
		kinds = append(kinds, string(k))
	}
	if diff := cmp.Diff(kinds, d.Components.Schemas["Kind"].Value.Enum); diff != "" {
		t.Errorf("kinds (-there are +described):\n%s", diff)
	}
}

// TestDescribedExamples checks that the API accepts the examples in the description.
func TestDescribedExamples(t *testing.T) {
	t.Parallel()
	for _, at := range [][2]string{{"POST", "/v1/hooks"}, {"PATCH", "/v1/hooks/{id}"}} {
		example := documentOf(t).Paths.Value(at[1]).GetOperation(at[0]).RequestBody.Value.Content["application/json"].Example
		text, err := json.Marshal(example)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(at[0], "/", strings.NewReader(string(text)))
		r.Header.Set("Content-Type", "application/json")
		var change hooks.Change
		if err := changeMembers(&change).read(r); err != nil || len(text) < 30 {
			t.Errorf("%v: %v in %s", at, err, text)
		}
		if at[0] == http.MethodPost {
			if err := change.Apply(hooks.Settings{}).Check(hooks.Rules{}); err != nil {
				t.Errorf("%v: %v in %s", at, err, text)
			}
		}
	}
}

// TestServedDescription checks that everyone gets the document.
func TestServedDescription(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	got := w.call(t, http.MethodGet, "/openapi.yaml", "", "")
	if got.status != http.StatusOK || got.text != string(openAPIDocument) || got.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v", got.status, got.header)
	}
	if got := w.call(t, http.MethodPost, "/openapi.yaml", w.operator, ""); got.status != http.StatusMethodNotAllowed ||
		got.header.Get("Allow") != "GET" {
		t.Errorf("%d %v %s", got.status, got.header, got.text)
	}
}

package issueapi

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"upcall/internal/event"
)

// TestPaths checks that unknown paths and methods are refused with a problem, too.
func TestPaths(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, tt := range []struct {
		method, path string
		status       int
		rule, allow  string
	}{
		{"GET", "/", 404, "path", ""},
		{"GET", "/v1", 404, "path", ""},
		{"POST", "/v1/uploads/", 404, "path", ""},
		{"POST", "/v2/uploads", 404, "path", ""},
		{"GET", "/v1/uploads/a/b", 404, "path", ""},
		{"GET", "/metrics", 404, "path", ""},
		{"GET", "/readyz", 404, "path", ""},
		{"GET", "/debug/pprof/", 404, "path", ""},
		{"GET", "/v1/uploads", 405, "method", "POST"},
		{"PUT", "/v1/uploads", 405, "method", "POST"},
		{"PATCH", "/v1/uploads/x", 405, "method", "GET, DELETE"},
		{"POST", "/openapi.yaml", 405, "method", "GET"},
	} {
		got := s.call(t, tt.method, tt.path, s.photos, "")
		if got.status != tt.status || got.text("rule") != tt.rule || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, got.status, got.raw)
		}
		allowed, want := strings.Split(got.header.Get("Allow"), ", "), strings.Split(tt.allow, ", ")
		slices.Sort(allowed)
		slices.Sort(want)
		if diff := cmp.Diff(want, allowed); diff != "" {
			t.Errorf("%s %s: Allow (-want +got):\n%s", tt.method, tt.path, diff)
		}
	}
}

// TestDescription compares openapi.yaml with the routes.
func TestDescription(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	got := s.call(t, http.MethodGet, "/openapi.yaml", "", "")
	if got.status != http.StatusOK || got.raw != string(openAPIDocument) || got.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v", got.status, got.header)
	}
	described := make(map[string]bool)
	for path, item := range documentOf(t).Paths.Map() {
		for method, operation := range item.Operations() {
			described[method+" "+path] = true
			if operation.OperationID == "" || operation.Summary == "" {
				t.Errorf("%s %s has no name or no summary", method, path)
			}
		}
	}
	server, err := New(Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Keys: fixedKeys{}, Policies: parsePolicies(t, policies),
		Metrics: NewMetrics(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	routed := make(map[string]bool)
	for _, route := range server.API().(*gin.Engine).Routes() {
		routed[route.Method+" "+strings.ReplaceAll(route.Path, ":id", "{upload_id}")] = true
	}
	if diff := cmp.Diff(routed, described); diff != "" {
		t.Errorf("routes and description (-routes +description):\n%s", diff)
	}
}

// TestDescribedProblems checks that every kind of problem and every rule is described.
func TestDescribedProblems(t *testing.T) {
	t.Parallel()
	schemas := documentOf(t).Components.Schemas
	types, rules := schemas["Problem"].Value.Properties["type"].Value.Enum, schemas["Rule"].Value.Enum
	kinds := []kind{
		kindMalformed, kindUnauthenticated, kindPolicy, kindNotFound, kindMethod, kindTooLarge, kindMediaType, kindUnissuable,
		kindRate, kindOSS, kindUnavailable,
	}
	if len(types) != len(kinds) {
		t.Errorf("%d types are described, and there are %d", len(types), len(kinds))
	}
	for _, k := range kinds {
		if !slices.Contains(types, any("urn:upcall:problem:"+k.label)) || k.rule != "" && !slices.Contains(rules, any(k.rule)) {
			t.Errorf("%s with the rule %q is not described", k.label, k.rule)
		}
	}
}

// TestExamples checks that the API accepts the examples in the description.
func TestExamples(t *testing.T) {
	t.Parallel()
	for path, multipart := range map[string]bool{"/v1/uploads": false, "/v1/uploads/multipart": true} {
		media := documentOf(t).Paths.Value(path).Post.RequestBody.Value.Content["application/json"]
		text := marshal(t, media.Example)
		if _, err := decodeUpload(text, multipart); err != nil || len(text) < 50 {
			t.Errorf("%s: %v in %s", path, err, text)
		}
	}
}

// TestDescribedRequests checks that the API reads exactly the described fields.
func TestDescribedRequests(t *testing.T) {
	t.Parallel()
	for name, multipart := range map[string]bool{"UploadRequest": false, "MultipartRequest": true} {
		read := slices.Sorted(maps.Keys(uploadFields(&uploadRequest{}, multipart, &decoder{})))
		described := slices.Sorted(maps.Keys(documentOf(t).Components.Schemas[name].Value.Properties))
		if diff := cmp.Diff(read, described); diff != "" || len(read) < 8 {
			t.Errorf("%s (-read +described):\n%s", name, diff)
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) {
		c.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "page")
		})
	})
	if got := s.call(t, http.MethodGet, "/", "", ""); got.status != http.StatusOK || got.raw != "page" {
		t.Errorf("%d %s", got.status, got.raw)
	}
	for path, want := range map[string]int{"/v1/uploads": http.StatusMethodNotAllowed, "/v2/uploads": http.StatusNotFound,
		"/page": http.StatusNotFound} {
		if got := s.call(t, http.MethodGet, path, "", ""); got.status != want || got.text("rule") == "" {
			t.Errorf("%s: %d %s", path, got.status, got.raw)
		}
	}
	if got := s.call(t, http.MethodPost, "/", s.photos, goodBody); got.status != http.StatusMethodNotAllowed ||
		got.header.Get("Allow") == "" {
		t.Errorf("%d %s", got.status, got.raw)
	}
}

// TestDescribedObjects checks that each object either lists its members or says what kind they
// are of: generators take one that does neither for an object without members.
func TestDescribedObjects(t *testing.T) {
	t.Parallel()
	objects := 0
	var check func(path string, ref *openapi3.SchemaRef)
	check = func(path string, ref *openapi3.SchemaRef) {
		schema := ref.Value
		if schema.Type.Is("object") {
			objects++
			if len(schema.Properties) == 0 && schema.AdditionalProperties.Schema == nil {
				t.Errorf("%s has neither properties nor additionalProperties", path)
			}
		}
		for name, property := range schema.Properties {
			check(path+"."+name, property)
		}
	}
	for name, ref := range documentOf(t).Components.Schemas {
		check(name, ref)
	}
	vars := documentOf(t).Components.Schemas["Event"].Value.Properties["vars"].Value
	if objects < 5 || vars.AdditionalProperties.Schema == nil || vars.AdditionalProperties.Schema.Value.Type != nil {
		t.Errorf("%d objects; the variables of an event may be any JSON", objects)
	}
}

// TestDescribedEvent checks that the description names every column of an event.
func TestDescribedEvent(t *testing.T) {
	t.Parallel()
	schema := documentOf(t).Components.Schemas["Event"].Value
	want := make(map[string]bool)
	for _, c := range event.Columns {
		want[c.Member()] = c.Name != "upload_id" // a member of the upload
	}
	got := map[string]bool{"upload_id": false}
	for name := range schema.Properties {
		got[name] = slices.Contains(schema.Required, name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-columns +description):\n%s", diff)
	}
}

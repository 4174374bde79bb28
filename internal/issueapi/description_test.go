package issueapi

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"
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
	server, err := New(Config{Issuer: cannedIssuer{}, Ledger: noLedger{}, Repeats: noRepeats{}, Keys: fixedKeys{}, Policies: parsePolicies(t, policies),
		Metrics: NewMetrics(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	var routes []string
	for _, route := range server.API().(*gin.Engine).Routes() {
		routes = append(routes, route.Method+" "+strings.ReplaceAll(route.Path, ":id", "{upload_id}"))
	}
	documentOf(t).CheckRoutes(t, routes)
}

// TestDescribedProblems checks that every kind of problem and every rule is described.
func TestDescribedProblems(t *testing.T) {
	t.Parallel()
	rules := documentOf(t).Components.Schemas["Rule"].Value.Enum
	var labels []string
	for _, k := range []kind{
		kindMalformed, kindUnauthenticated, kindPolicy, kindNotFound, kindMethod, kindTooLarge, kindMediaType, kindUnissuable,
		kindRate, kindOSS, kindUnavailable, kindInProgress, kindReused,
	} {
		labels = append(labels, k.label)
		if k.rule != "" && !slices.Contains(rules, any(k.rule)) {
			t.Errorf("the rule %q is not described", k.rule)
		}
	}
	documentOf(t).CheckProblems(t, labels)
}

// TestExamples checks that the API accepts the examples in the description.
func TestExamples(t *testing.T) {
	t.Parallel()
	for path, of := range map[string]form{"/v1/uploads": atOnce, "/v1/uploads/multipart": inParts, "/v1/uploads/form": asForm} {
		media := documentOf(t).Paths.Value(path).Post.RequestBody.Value.Content["application/json"]
		text := marshal(t, media.Example)
		if _, err := decodeUpload(text, of); err != nil || len(text) < 50 {
			t.Errorf("%s: %v in %s", path, err, text)
		}
	}
}

// TestDescribedRequests checks that the API reads exactly the described fields.
func TestDescribedRequests(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]form{"UploadRequest": atOnce, "MultipartRequest": inParts, "FormRequest": asForm} {
		read := slices.Sorted(maps.Keys(uploadFields(&uploadRequest{}, of, &decoder{})))
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

// TestDescribedSchemas checks what the two APIs describe alike.
func TestDescribedSchemas(t *testing.T) {
	t.Parallel()
	documentOf(t).CheckObjects(t)
	documentOf(t).CheckEvent(t, map[string]bool{"upload_id": false}) // a member of the upload
}

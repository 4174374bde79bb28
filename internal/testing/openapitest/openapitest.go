// Package openapitest compares an HTTP API with the OpenAPI document that describes it.
package openapitest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/go-cmp/cmp"

	"upcall/internal/event"
)

// A Description is a valid OpenAPI document.
type Description struct {
	*openapi3.T
	router routers.Router
}

// Read reads and validates a document.
func Read(document []byte) (*Description, error) {
	d, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, fmt.Errorf("read description: %w", err)
	}
	if err := d.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("validate description: %w", err)
	}
	router, err := gorillamux.NewRouter(d)
	if err != nil {
		return nil, fmt.Errorf("read paths of description: %w", err)
	}
	return &Description{d, router}, nil
}

// CheckAnswer compares an answer with the description. Without a body, which may be a stream,
// only status and headers are compared.
func (d *Description) CheckAnswer(t testing.TB, r *http.Request, response *http.Response, body []byte) {
	t.Helper()
	if body != nil && response.StatusCode != http.StatusNoContent && response.ContentLength != int64(len(body)) {
		t.Errorf("Content-Length is %d, the body has %d bytes", response.ContentLength, len(body))
	}
	route, parameters, err := d.router.FindRoute(r)
	if err != nil {
		return // nothing is described for this path; its tests check the answer themselves
	}
	err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: parameters, Route: route},
		Status:                 response.StatusCode,
		Header:                 response.Header,
		Body:                   io.NopCloser(bytes.NewReader(body)),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, ExcludeResponseBody: body == nil},
	})
	if err != nil {
		t.Errorf("%s %s: the answer is not as described: %v\n%d %v\n%s", r.Method, r.URL.Path, err,
			response.StatusCode, response.Header, body)
	}
}

// CheckRoutes compares the routes, such as "GET /v1/uploads/{id}", with the described
// operations, both ways.
func (d *Description) CheckRoutes(t testing.TB, routes []string) {
	t.Helper()
	var described []string
	for path, item := range d.Paths.Map() {
		for method, operation := range item.Operations() {
			described = append(described, method+" "+path)
			if operation.OperationID == "" || operation.Summary == "" {
				t.Errorf("%s %s has no name or no summary", method, path)
			}
		}
	}
	routes = slices.Clone(routes)
	slices.Sort(routes)
	slices.Sort(described)
	if diff := cmp.Diff(routes, described); diff != "" {
		t.Errorf("routes and description (-routes +description):\n%s", diff)
	}
}

// CheckObjects checks that each object either lists its members or says what kind they are of:
// generators take one that does neither for an object without members.
func (d *Description) CheckObjects(t testing.TB) {
	t.Helper()
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
	for name, ref := range d.Components.Schemas {
		check(name, ref)
	}
	vars := d.Components.Schemas["Event"].Value.Properties["vars"].Value
	if objects < 5 || vars.AdditionalProperties.Schema == nil || vars.AdditionalProperties.Schema.Value.Type != nil {
		t.Errorf("%d objects; the variables of an event may be any JSON", objects)
	}
}

// CheckEvent checks that the schema Event requires every column of an event, and what else it
// has: others says for a member whether it is in the schema.
func (d *Description) CheckEvent(t testing.TB, others map[string]bool) {
	t.Helper()
	want, got := make(map[string]bool), make(map[string]bool)
	for _, c := range event.Columns {
		want[c.Member()] = true
	}
	for name, there := range others {
		if want[name] = there; !there {
			delete(want, name)
		}
	}
	schema := d.Components.Schemas["Event"].Value
	for name := range schema.Properties {
		got[name] = slices.Contains(schema.Required, name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members of an event (-columns +description):\n%s", diff)
	}
}

// CheckProblems checks that the schema Problem names exactly the kinds of problems there are.
func (d *Description) CheckProblems(t testing.TB, labels []string) {
	t.Helper()
	var want, got []string
	for _, label := range labels {
		want = append(want, "urn:upcall:problem:"+label)
	}
	for _, kind := range d.Components.Schemas["Problem"].Value.Properties["type"].Value.Enum {
		got = append(got, kind.(string))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds of problems (-there are +described):\n%s", diff)
	}
}

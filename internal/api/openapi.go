package api

import (
	_ "embed"
	"net/http"
)

// openAPIDocument describes the API. Tests compare it with the routes and the answers.
//
//go:embed openapi.yaml
var openAPIDocument []byte

// openAPI serves the document to everyone: it contains no secret.
func (*Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	writeBody(w, http.StatusOK, "application/yaml", openAPIDocument) // RFC 9512
	return nil
}

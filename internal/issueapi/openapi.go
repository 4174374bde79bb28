package issueapi

import (
	_ "embed"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
)

// openAPIDocument describes the API. Tests compare it with the routes and the answers.
//
//go:embed openapi.yaml
var openAPIDocument []byte

// openAPI serves the document to everyone: it contains no secret.
func (s *Server) openAPI(c *gin.Context) {
	eventOf(c).outcome = outcomeOK
	c.Header("Content-Length", strconv.Itoa(len(openAPIDocument)))
	c.Data(http.StatusOK, "application/yaml", openAPIDocument) // RFC 9512
}

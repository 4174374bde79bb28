// Package check finds the first broken link between credentials and a recorded upload, by an upload.
//
// It asks OSS for the time, puts one small object with a callback, and reads from what OSS answers,
// and where it can from the receiver's database, how far that came. A link that cannot be told apart
// from here is said to be unknown, and never to be right.
package check

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"upcall/internal/issue"
	"upcall/internal/oss"
)

// The links, in the order of the report.
const (
	Endpoint    = "endpoint"
	Clock       = "clock"
	Credentials = "credentials"
	Region      = "region"
	Bucket      = "bucket"
	Permission  = "permission"
	CORS        = "CORS"
	CallbackURL = "callback URL"
	TLS         = "TLS and SNI"
	TokenKeys   = "token keys"
	Receiver    = "receiver"
	Database    = "database"
)

// Links are all of them.
var links = []string{Endpoint, Clock, Credentials, Region, Bucket, Permission, CORS, CallbackURL, TLS, TokenKeys, Receiver, Database}

// A Status is what is known about a link.
type Status string

const (
	OK      Status = "ok"
	Failed  Status = "failed"
	Unknown Status = "unknown" // a link before it failed, or it was not asked for
)

// A Link is one of the links.
type Link struct {
	Name   string `json:"link"`
	Status Status `json:"status"`
	Detail string `json:"detail"` // what was seen, or what to do; one line
}

// A Report is the result of a check.
type Report struct {
	Failed   string    `json:"failed"` // the first link that failed; "" if none did
	Links    []Link    `json:"links"`
	UploadID uuid.UUID `json:"upload_id"`
	Bucket   string    `json:"bucket"`
	Key      string    `json:"key"`
	// Left says why the object is still there; "" if there is none any more.
	Left string `json:"left"`
}

// A Store is the receiver's database. It is an interface so that a check works without one.
type Store interface {
	// Recorded reports whether the upload has a row.
	Recorded(ctx context.Context, upload uuid.UUID) (bool, error)
	// Refusal returns the reason why a receiver refused the callback of the request, "" if it is
	// not known.
	Refusal(ctx context.Context, upload uuid.UUID, requestID string) (string, error)
}

// Config is what a check works with.
type Config struct {
	// OSS deletes the object. Required.
	OSS *oss.Client
	// Issuer signs the upload. Required.
	Issuer *issue.Issuer
	// Upload is the object and its callback. Required.
	Upload issue.Request
	// Tokens says that the issuer has token keys.
	Tokens bool
	// Origin is that of a page that uploads, for the check of the CORS rule. Default none.
	Origin string
	// Store is the receiver's database. Default none.
	Store Store
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// content is what is uploaded.
const content = "This is a check of Upcall. It may be deleted.\n"

// Size is the size of the object, in bytes.
const Size = len(content)

// A checker is one check under way.
type checker struct {
	Config
	client *http.Client
	report Report
}

// Run makes the check. It says what it finds, and has no error of its own.
func Run(ctx context.Context, cfg Config) Report {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &checker{Config: cfg, client: newClient()}
	defer c.client.CloseIdleConnections()
	c.report = Report{Bucket: cfg.Upload.Object.Bucket, Key: cfg.Upload.Object.Key}
	for _, name := range links {
		c.report.Links = append(c.report.Links, Link{Name: name, Status: Unknown})
	}
	if c.reach(ctx) {
		c.upload(ctx)
	}
	for _, link := range c.report.Links {
		if link.Status == Failed && c.report.Failed == "" {
			c.report.Failed = link.Name
		}
	}
	return c.report
}

// set says what is known of a link. What was said first stays.
func (c *checker) set(name string, status Status, detail string) {
	for i := range c.report.Links {
		if link := &c.report.Links[i]; link.Name == name && link.Status == Unknown {
			link.Status, link.Detail = status, detail
		}
	}
}

// failed reports whether a link is known to be broken.
func (c *checker) failed(name string) bool {
	return slices.ContainsFunc(c.report.Links, func(l Link) bool { return l.Name == name && l.Status == Failed })
}

// lost says that OSS stopped answering.
func (c *checker) lost(detail string) {
	c.report.Links[0] = Link{Endpoint, Failed, detail}
}

// fail says that a link failed and returns false.
func (c *checker) fail(name, detail string) bool {
	c.set(name, Failed, detail)
	return false
}

// pass says that links are right.
func (c *checker) pass(detail string, names ...string) {
	for _, name := range names {
		c.set(name, OK, detail)
	}
}

// An answer of a receiver, as far as it counts here.
type answer struct {
	Status   string `json:"status"`
	EventID  string `json:"event_id"`
	UploadID string `json:"upload_id"`
	Durable  string `json:"durable"`
}

func readAnswer(body []byte) (a answer, ours bool) {
	err := json.Unmarshal(body, &a)
	return a, err == nil && a.Status == "ok" && a.EventID != ""
}

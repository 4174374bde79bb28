package check

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/ossrule"
)

const (
	// maxSkew is how far a clock may be off: OSS refuses requests from further away.
	maxSkew = 15 * time.Minute
	// patience is how long OSS may take, which itself waits five seconds for each receiver.
	patience = 60 * time.Second
	// maxBody is how much of an answer is read, in bytes.
	maxBody = 1 << 20
)

func newClient() *http.Client {
	return &http.Client{
		Timeout: patience,
		// A redirect could send the signed request to any server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 15 * time.Second, MaxResponseHeaderBytes: 1 << 20,
		},
	}
}

// A response is one that was read completely.
type response struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request. The error does not hold the URL: who has it may upload.
func (c *checker) send(ctx context.Context, method, target string, header map[string]string, body string) (response, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return response{}, errors.New("the URL cannot be used")
	}
	for name, value := range header {
		if !strings.EqualFold(name, "content-length") { // net/http sends that itself
			request.Header.Set(name, value)
		}
	}
	r, err := c.client.Do(request)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if err != nil {
		return response{}, err
	}
	defer r.Body.Close() // only read
	text, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	return response{r.StatusCode, r.Header, text}, err
}

// reach finds out whether OSS is at the endpoint, and what time it has there. It asks without a
// signature, whose time could be refused.
func (c *checker) reach(ctx context.Context) bool {
	origin, err := c.OSS.Origin(ctx, c.Upload.Object.Bucket)
	if err != nil {
		return c.fail(Credentials, fault.Line(err.Error())+"; check where the credentials come from")
	}
	r, err := c.send(ctx, http.MethodGet, origin+"/", nil, "")
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return c.fail(Endpoint, fmt.Sprintf("its certificate is not trusted: %s; check --endpoint, and proxies between here and OSS", fault.Line(err.Error())))
	case err != nil:
		return c.fail(Endpoint, fmt.Sprintf("%s does not answer: %s; check --endpoint, --region, the network, and --internal outside of Alibaba Cloud",
			origin, fault.Line(err.Error())))
	case r.header.Get("x-oss-request-id") == "":
		return c.fail(Endpoint, fmt.Sprintf("what answers at %s (%d) is not OSS: it has no x-oss-request-id; check --endpoint, and proxies between here and OSS",
			origin, r.status))
	}
	c.pass(origin+" answers", Endpoint)
	theirs, err := http.ParseTime(r.header.Get("Date"))
	if err != nil {
		return true // then OSS says it when it refuses
	}
	skew := c.Now().Sub(theirs).Round(time.Second)
	if skew.Abs() > maxSkew {
		return c.fail(Clock, fmt.Sprintf("the clock of this machine is off by %s, and OSS allows %s; set it", skew, maxSkew))
	}
	if skew.Abs() > 2*time.Second { // whole seconds, and the way
		c.pass(fmt.Sprintf("off by %s", skew), Clock)
	} else {
		c.pass("the same as OSS's", Clock)
	}
	return true
}

// upload puts the object and reads what that says of all other links.
func (c *checker) upload(ctx context.Context) {
	issued, _, err := c.Issuer.Issue(ctx, c.Upload)
	c.report.UploadID = issued.ID
	if err != nil {
		link, advice := Credentials, "check where the credentials come from"
		if issued.ID != uuid.Nil { // then only its row is missing
			link, advice = Database, "check UPCALL_DATABASE_URL, to which the upload could not be written"
		}
		c.fail(link, fault.Line(err.Error())+"; "+advice)
		return
	}
	c.cors(ctx, issued)
	put, err := c.send(ctx, issued.Method, issued.URL, issued.Headers, content)
	if err != nil {
		c.lost("the upload got no answer: " + fault.Line(err.Error()) + "; check the network and proxies, and try again")
		return
	}
	if put.status != http.StatusOK && put.status != http.StatusNonAuthoritativeInfo {
		c.refused(put)
		return
	}
	c.pass("OSS accepts them", Credentials)
	c.pass("OSS accepts it", Region)
	c.pass(c.Upload.Object.Bucket+" is there", Bucket)
	c.pass("the object is stored", Permission)
	c.called(ctx, put)
	c.clean(ctx)
}

// A refusal is an error document of OSS.
type refusal struct{ Code, Message, EC string }

func readRefusal(body []byte) refusal {
	var r refusal
	_ = xml.NewDecoder(bytes.NewReader(body)).Decode(&r) // a body other than XML has no code
	return r
}

// refused says which link OSS's refusal is about. Those before it are right: OSS looks at the
// signature first, then at the bucket, then at rights.
func (c *checker) refused(r response) {
	e := readRefusal(r.body)
	link, before := linkOf(r.status, e)
	advice := ossrule.Advice(e.Code, e.Message)
	if advice == "" {
		advice = "see OSS's documentation of the code"
	}
	detail := fmt.Sprintf("OSS answers %d %s: %s; %s", r.status, shown(e.Code), shown(e.Message), advice)
	if link == Endpoint {
		c.lost(detail)
		return
	}
	if link == Clock {
		c.report.Links[1] = Link{Clock, Failed, detail} // the answer without a signature had another time
	}
	c.fail(link, detail)
	c.pass("OSS accepts it", before...)
}

func linkOf(status int, e refusal) (link string, before []string) {
	message := strings.ToLower(e.Message)
	signed := []string{Clock, Credentials}
	switch {
	case e.Code == "RequestTimeTooSkewed", e.Code == "AccessDenied" && strings.Contains(message, "not yet"), e.Code == "AccessDenied" && ossrule.Expired(e.Code, e.Message):
		return Clock, nil
	case strings.Contains(message, "region"), e.Code == "AccessDenied" && strings.Contains(message, "endpoint"):
		return Region, nil
	case e.Code == "InvalidAccessKeyId", e.Code == "SignatureDoesNotMatch", e.Code == "InvalidSecurityToken", e.Code == "UserDisable",
		strings.HasPrefix(e.Code, "SecurityToken"):
		return Credentials, nil
	case e.Code == "NoSuchBucket", e.Code == "InvalidBucketName":
		return Bucket, append(signed, Region)
	case strings.Contains(message, "callback"):
		return CallbackURL, append(signed, Region, Bucket, Permission)
	case status == http.StatusForbidden:
		return Permission, append(signed, Region, Bucket)
	}
	return Endpoint, nil
}

// shown is a text of an answer, safe for a terminal and not too long for a screen.
func shown(s string) string { return fault.Line(s[:min(len(s), 300)]) }

// cors asks what a browser asks before an upload.
func (c *checker) cors(ctx context.Context, issued manifest.Upload) {
	if c.Origin == "" {
		return
	}
	var names []string
	for name := range issued.Headers {
		if name != "content-length" { // browsers send that without asking
			names = append(names, name)
		}
	}
	r, err := c.send(ctx, http.MethodOptions, issued.URL, map[string]string{
		"Origin": c.Origin, "Access-Control-Request-Method": issued.Method, "Access-Control-Request-Headers": strings.Join(names, ","),
	}, "")
	const fix = "; give the bucket the rule in docs/uploads.md, From a web page"
	allowed := r.header.Get("Access-Control-Allow-Origin")
	switch {
	case err != nil:
		c.fail(CORS, "the preflight got no answer: "+fault.Line(err.Error()))
	case r.status != http.StatusOK || allowed != "*" && !strings.EqualFold(allowed, c.Origin):
		c.fail(CORS, fmt.Sprintf("the bucket has no CORS rule that lets pages of %s send this upload (preflight: %d)%s", c.Origin, r.status, fix))
	default:
		c.pass("pages of "+c.Origin+" may upload", CORS)
	}
}

// clean deletes the object, if the credentials may.
func (c *checker) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second) // also after Ctrl-C
	defer cancel()
	if err := c.OSS.Delete(ctx, c.report.Bucket, c.report.Key); err != nil {
		c.report.Left = fault.Line(err.Error())
	}
}

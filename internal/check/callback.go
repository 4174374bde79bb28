package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"upcall/internal/fault"
)

// called reads from OSS's answer what became of the callback.
func (c *checker) called(ctx context.Context, put response) {
	if put.status == http.StatusOK {
		c.answered(ctx, put)
		return
	}
	message := readRefusal(put.body).Message
	status := 0
	_, after, said := strings.Cut(message, "Error status :")
	if said {
		_, _ = fmt.Sscanf(strings.TrimSpace(after), "%d", &status) // it stays 0 for what is no number
	}
	tell := func(text string) string { return fmt.Sprintf("OSS's callback failed (%s); %s", shown(message), text) }
	target := c.Upload.Callback.URLs[0]
	switch {
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		c.fail(CallbackURL, tell("what answers has no callback path there: compare --callback-url with the receiver's UPCALL_CALLBACK_PATH, and the proxy's path"))
	case status >= 300 && status < 400:
		c.fail(CallbackURL, tell("OSS does not follow redirects: give the URL that it leads to"))
	case status == http.StatusForbidden || status == http.StatusBadRequest || status == http.StatusUnsupportedMediaType:
		c.turnedDown(ctx, put, tell)
	case status == http.StatusServiceUnavailable:
		c.pass("OSS reached a receiver", CallbackURL, TLS)
		c.fail(Database, tell("the receiver cannot record: see its /readyz and its log"))
	case status == http.StatusBadGateway && strings.HasPrefix(target, "https:"):
		c.probe(ctx, target, tell)
		c.fail(TLS, tell("either a proxy does not reach the receiver, or its certificate or server name is wrong for OSS: look at the proxy's log"))
	case status == 0 && strings.Contains(strings.ToLower(message), "json"):
		c.pass("OSS got an answer", CallbackURL, TLS)
		c.fail(Receiver, tell("what answers there is not an Upcall receiver"))
	case status >= 400:
		c.pass("OSS got an answer", CallbackURL, TLS)
		c.fail(Receiver, tell("see the log of the receiver, or of the proxy in front of it"))
	default:
		c.probe(ctx, target, tell)
		if c.failed(TLS) { // then it was reached
			return
		}
		c.fail(CallbackURL, tell("it can be reached from here, so OSS comes from elsewhere: it must be open to the Internet on IPv4, and answer within 5 s"))
	}
}

// turnedDown finds out why a receiver refused the callback.
func (c *checker) turnedDown(ctx context.Context, put response, tell func(string) string) {
	c.pass("OSS reached a server", CallbackURL, TLS)
	reason := c.reason(ctx, put.header.Get("x-oss-request-id"))
	because := tell("the receiver's reason is " + reason + ": ")
	switch {
	case reason == "" && !c.Tokens:
		c.fail(TokenKeys, tell("there was no upload token: set UPCALL_TOKEN_KEYS as it is at the receiver"))
	case reason == "":
		c.fail(Receiver, tell("most likely UPCALL_TOKEN_KEYS differ, or UPCALL_BUCKETS there lacks the bucket: its log has the reason, "+
			"and so would this check with UPCALL_DATABASE_URL"))
	case strings.HasPrefix(reason, "token_"):
		c.fail(TokenKeys, because+"set UPCALL_TOKEN_KEYS to the same at issuer and receiver")
	case strings.HasPrefix(reason, "bucket_"):
		c.fail(Receiver, because+"add the bucket to UPCALL_BUCKETS there")
	default:
		c.fail(Receiver, because+"receiver doctor explains it; if something in between changes the path, set UPCALL_PUBLIC_URL")
	}
}

// reason waits a little, because receivers write refusals after they have answered.
func (c *checker) reason(ctx context.Context, requestID string) string {
	for tries := 0; c.Store != nil && tries < 20; tries++ {
		if reason, err := c.Store.Refusal(ctx, c.report.UploadID, requestID); err != nil || reason != "" {
			return reason // without the right to read them, the reason is not known
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return ""
		}
	}
	return ""
}

// answered reads the answer of the receiver.
func (c *checker) answered(ctx context.Context, put response) {
	c.pass("OSS called it", CallbackURL)
	if strings.HasPrefix(c.Upload.Callback.URLs[0], "https:") {
		c.pass("OSS's handshake succeeded", TLS)
	}
	a, ours := readAnswer(put.body)
	if !ours {
		c.fail(Receiver, "what answered OSS with 200 is not an Upcall receiver, or its UPCALL_REPLY_BODY is replace: "+shown(string(put.body)))
	}
	switch {
	case ours && a.UploadID == c.report.UploadID.String():
		c.pass("the receiver accepts the token", TokenKeys)
	case ours && c.Tokens:
		c.fail(TokenKeys, "the receiver recorded the upload without its token: set UPCALL_TOKEN=required and UPCALL_TOKEN_KEYS there")
	case ours:
		c.fail(TokenKeys, "there was no upload token, and the receiver accepts that: anyone with a bucket could have rows recorded; "+
			"set UPCALL_TOKEN_KEYS here, and there with UPCALL_TOKEN=required")
	}
	if ours {
		c.pass("it recorded the event "+shown(a.EventID), Receiver)
	}
	switch {
	case ours && a.Durable != "postgres":
		c.fail(Database, "the receiver kept the callback in its "+shown(a.Durable)+", because PostgreSQL does not answer it: see its /readyz and its log")
	case c.Store != nil:
		c.row(ctx)
	case ours:
		c.pass("the receiver has committed the row", Database)
	}
}

// row looks for the row of the upload.
func (c *checker) row(ctx context.Context) {
	there, err := c.Store.Recorded(ctx, c.report.UploadID)
	switch {
	case err != nil:
		c.fail(Database, fault.Line(err.Error())+"; check UPCALL_DATABASE_URL")
	case !there:
		c.fail(Database, "the row is not in the database of UPCALL_DATABASE_URL: the receiver uses another one")
	default:
		c.pass("the row is there", Database)
	}
}

// probe tells what can be seen from here of a callback URL that OSS could not call.
func (c *checker) probe(ctx context.Context, target string, tell func(string) string) {
	u, err := url.Parse(target)
	if err != nil {
		return // it was checked when the upload was issued
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		c.fail(CallbackURL, tell("it cannot be reached from here either: "+fault.Line(err.Error())))
		return
	}
	defer conn.Close() // nothing was written
	if u.Scheme == "https" {
		c.handshake(ctx, conn, u.Hostname(), tell)
	}
}

// handshake does what OSS does: it sends the server name only if the callback says so.
func (c *checker) handshake(ctx context.Context, conn net.Conn, host string, tell func(string) string) {
	sni := c.Upload.Callback.SNI == nil || *c.Upload.Callback.SNI
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // the name is verified below, also if it is not sent
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
			for _, more := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(more)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		}}
	if sni {
		config.ServerName = host
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := tls.Client(conn, config).HandshakeContext(ctx)
	name, wrongName := errors.AsType[x509.HostnameError](err)
	switch {
	case err == nil:
	case wrongName && !sni:
		c.fail(TLS, tell("without a server name the server shows another certificate ("+fault.Line(name.Error())+"): leave out --no-callback-sni"))
	case !sni:
		c.fail(TLS, tell("without a server name the TLS handshake fails from here, too ("+fault.Line(err.Error())+
			"); the server may need the name: leave out --no-callback-sni"))
	default:
		c.fail(TLS, tell("the TLS handshake fails from here, too: "+fault.Line(err.Error())))
	}
}

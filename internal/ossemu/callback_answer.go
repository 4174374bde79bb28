package ossemu

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
)

// maxAnswer is the largest answer of a receiver, in bytes: "less than 1 MB".
const maxAnswer = 1<<20 - 1

// A caller sends callbacks and judges the answers.
type caller struct {
	timeout    time.Duration
	plain, sni *http.Client // without and with a server name in the TLS handshake
}

func newCaller(cfg Config) *caller {
	return &caller{timeout: cfg.CallbackTimeout, plain: callbackClient(cfg, false), sni: callbackClient(cfg, true)}
}

// callbackClient speaks HTTP/1.1, one request a connection, past any proxy, and stops
// at redirects: OSS does not follow them, and a receiver must not choose what is
// called with a signed body.
func callbackClient(cfg Config, sni bool) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: cfg.CallbackDial,
			DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return dialTLS(ctx, cfg, network, addr, sni)
			},
			DisableKeepAlives:  true,
			DisableCompression: true,
			// A flood of header lines must not fill the memory.
			MaxResponseHeaderBytes: 1 << 20,
		},
	}
}

// dialTLS opens a TLS connection with or without a server name in the handshake. The
// certificate is verified either way. crypto/tls sends the name that it verifies, so
// its own verification is replaced by the same one with the name given apart.
func dialTLS(ctx context.Context, cfg Config, network, addr string, sni bool) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: true, // VerifyConnection verifies
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{
				DNSName: host, Roots: cfg.CallbackRootCAs, Intermediates: x509.NewCertPool(), CurrentTime: cfg.Now(),
			}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}
	if sni {
		config.ServerName = host
	}
	raw, err := cfg.CallbackDial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// call sends out and returns the receiver's answer if OSS would pass it on. The error
// is the *apiError that the uploader sees; d is filled in with what came back.
func (c *caller) call(ctx context.Context, out outgoing, d *Delivery) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// Once there is a connection, TLS handshake included, a timeout is the receiver's.
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, out.url.String(), strings.NewReader(out.Body))
	if err != nil {
		return nil, fmt.Errorf("make callback request: %w", err)
	}
	r.Header, r.Host, r.Close = out.Header.Clone(), out.Host, true
	client := c.plain
	if out.sni {
		client = c.sni
	}
	resp, err := client.Do(r)
	if err != nil {
		if connected && errors.Is(err, context.DeadlineExceeded) {
			return nil, c.replyTimeout(out.url)
		}
		return nil, errCallbackFailed.saying("Error status : -1. OSS can not connect to your callbackUrl, please check it.", "")
	}
	defer resp.Body.Close() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	d.Status, d.AnswerHeader, d.Answer = resp.StatusCode, resp.Header, string(body)
	return body, judge(resp, body, err)
}

// judge applies OSS's demands on an answer. It returns nil or what the uploader sees
// (messages and EC numbers of the 203 page, misspellings included). A Content-Length
// that is no number at all never gets here: net/http cannot read such an answer, and
// the uploader sees the message for an unreachable receiver.
func judge(resp *http.Response, body []byte, readErr error) error {
	failed := errCallbackFailed.saying
	switch {
	case resp.StatusCode != http.StatusOK:
		return failed(fmt.Sprintf("Error status : %d.", resp.StatusCode), "0007-00000203")
	case resp.ContentLength < 0:
		return failed("Error Status : 400.User server missing content-length.", "")
	case resp.ContentLength == 0:
		return failed("Error Status : 400.User server return invalid conent-length value.", "")
	case resp.ContentLength > maxAnswer:
		return failed("Error Status : 400.User server return too long content-length value.", "")
	case errors.Is(readErr, context.DeadlineExceeded):
		return failed("Cost too long time.", "0007-00000202")
	case readErr != nil:
		return failed("Error status : -1. OSS can not connect to your callbackUrl, please check it.", "")
	case !json.Valid(body): // a byte order mark is not JSON either
		return failed("Response body is not valid json format.", "0007-00000205")
	}
	return nil
}

// replyTimeout is what the uploader sees if a receiver was reached and did not answer.
func (c *caller) replyTimeout(u *url.URL) error {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ms := c.timeout.Milliseconds()
	return errCallbackFailed.saying(fmt.Sprintf("Error status : -1 %s reply timeout, cost:%dms, timeout:%dms (err -4, errno110)",
		net.JoinHostPort(u.Hostname(), port), ms, ms), "")
}

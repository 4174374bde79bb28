package verify

import (
	"io"
	"net/http"
	"time"
)

const (
	fetchTimeout = 2 * time.Second // from the connection to the last byte
	maxKeyFile   = 16 << 10
)

// newKeyClient makes the client that fetches trusted keys. It shares nothing with
// http.DefaultClient: no proxy from the environment, which could replace the key; no
// redirect, which would let the server that answers choose the key; no compression, so
// that the limit applies to the bytes received.
func newKeyClient() *http.Client {
	return &http.Client{
		Timeout: fetchTimeout,
		Transport: &http.Transport{
			DisableCompression:     true,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxKeyFile,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetchKey gets the key at a URL that the operator trusts; it never sees any part of a
// request. The error matches one sentinel of kind CannotCheck.
func fetchKey(client *http.Client, url string) (*publicKey, error) {
	answer, err := client.Get(url)
	if err != nil {
		return nil, ErrKeyUnreachable.with("%v", err)
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return nil, ErrKeyRedirect.with("%s answers %d", url, answer.StatusCode)
	case answer.StatusCode != http.StatusOK:
		return nil, ErrKeyStatus.with("%s answers %d", url, answer.StatusCode)
	}
	file, err := io.ReadAll(io.LimitReader(answer.Body, maxKeyFile+1))
	if err != nil {
		return nil, ErrKeyUnreachable.with("read %s: %v", url, err)
	}
	if len(file) > maxKeyFile {
		return nil, ErrKeySize.with("%s", url)
	}
	return parsePublicKey(file)
}

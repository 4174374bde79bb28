// Package proxy_test checks the samples of proxies; internal/api and internal/e2e run services behind them.
package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upcall/internal/testing/proxytest"
)

// TestValid: each proxy accepts its sample as it stands, but for the certificate and the port.
func TestValid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	text := strings.NewReplacer("/etc/ssl/upcall.pem", filepath.Join(dir, "pem"), "/etc/ssl/private/upcall.key", filepath.Join(dir, "key"),
		"listen 443 ", "listen 127.0.0.1:44344 ").Replace(proxytest.Sample(t, "nginx"))
	certify(t, dir)
	write(t, config, proxytest.NginxMain(dir, text))
	nginx := proxytest.Command(t, "nginx", "-t", "-p", dir, "-e", "stderr", "-c", config)
	if out, err := nginx.CombinedOutput(); err != nil || strings.Contains(string(out), "[warn]") {
		t.Errorf("nginx -t: %v: %s", err, out)
	}
	for _, args := range [][]string{{"validate", "--adapter", "caddyfile", "--config", "Caddyfile"}, {"fmt", "--diff", "Caddyfile"}} {
		if out, err := proxytest.Command(t, "caddy", args...).CombinedOutput(); err != nil || strings.Contains(string(out), "\n+") {
			t.Errorf("caddy %s: %v: %s", args[0], err, out)
		}
	}
}

// certify writes a certificate and its key.
func certify(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"hooks.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	write(t, filepath.Join(dir, "key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

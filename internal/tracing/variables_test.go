package tracing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"

	"upcall/internal/fault"
	"upcall/internal/testing/logtest"
)

// pair writes a certificate and its key.
func pair(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public})),
		file(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hunter2.pem")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCheckAccepts holds that what the SDK can read is no mistake.
func TestCheckAccepts(t *testing.T) {
	t.Parallel()
	certificate, key := pair(t)
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_HEADERS":            " authorization=Bearer%20hunter2%3D , x-scope=a=b,x-empty=",
		"OTEL_EXPORTER_OTLP_TRACES_HEADERS":     "authorization=Basic aHVudGVyMg==",
		"OTEL_EXPORTER_OTLP_TIMEOUT":            "0",
		"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT":     "10000",
		"OTEL_EXPORTER_OTLP_COMPRESSION":        "gzip",
		"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none",
		"OTEL_EXPORTER_OTLP_CERTIFICATE":        certificate,
		"OTEL_BSP_MAX_QUEUE_SIZE":               "100000",
		"OTEL_TRACES_SAMPLER":                   " Always_Off ",
		"OTEL_RESOURCE_ATTRIBUTES":              "deployment.environment.name=a%2Cb, team=",
	} {
		if err := Check(map[string]string{generalEndpoint: "https://c", name: value}); err != nil {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	for _, sampler := range []string{"traceidratio", "parentbased_traceidratio"} {
		for _, ratio := range []string{"", "0", "1", " 0.01 "} {
			env := map[string]string{generalEndpoint: "http://c", "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": ratio}
			if err := Check(env); err != nil {
				t.Errorf("%s %q: %v", sampler, ratio, err)
			}
		}
	}
	env := map[string]string{tracesEndpoint: "HTTPS://c", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": certificate,
		"OTEL_EXPORTER_OTLP_CLIENT_KEY": key}
	if err := Check(env); err != nil {
		t.Errorf("certificate and key: %v", err)
	}
}

// TestCheckRefuses holds that each mistake is found under the variable's name, without what is in it, and that nothing is
// one if nothing asks for traces.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	certificate, key := pair(t)
	_, other := pair(t)
	const (
		headers   = "OTEL_EXPORTER_OTLP_HEADERS"
		timeout   = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"
		authority = "OTEL_EXPORTER_OTLP_CERTIFICATE"
		client    = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
		clientKey = "OTEL_EXPORTER_OTLP_CLIENT_KEY"
		sampler   = "OTEL_TRACES_SAMPLER"
		argument  = "OTEL_TRACES_SAMPLER_ARG"
	)
	for _, tt := range []struct {
		field string
		env   map[string]string
	}{
		{headers, map[string]string{headers: "authorization: Bearer hunter2"}},
		{headers, map[string]string{headers: "Bearer hunter2="}},
		{headers, map[string]string{headers: "authorization=Bearer hunter2%"}},
		{headers, map[string]string{headers: "authorization=hunter2%0Ax"}},
		{headers, map[string]string{headers: "a=b,hunter2"}},
		{headers, map[string]string{headers: "a=b,"}},
		{headers, map[string]string{headers: "=hunter2"}},
		{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "hunter2"}},
		{timeout, map[string]string{timeout: "10s"}},
		{timeout, map[string]string{timeout: "-1"}},
		{timeout, map[string]string{timeout: "10000001"}},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "1e3"}},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP"}},
		{"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "zstd"}},
		{"OTEL_BSP_MAX_QUEUE_SIZE", map[string]string{"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}}, // the SDK would panic
		{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", map[string]string{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"}},
		{"OTEL_BSP_SCHEDULE_DELAY", map[string]string{"OTEL_BSP_SCHEDULE_DELAY": "0"}},
		{"OTEL_BSP_EXPORT_TIMEOUT", map[string]string{"OTEL_BSP_EXPORT_TIMEOUT": " 1"}}, // the SDK would ignore it
		{sampler, map[string]string{sampler: "parent_based_always_off"}},
		{sampler, map[string]string{sampler: "0.01"}},
		{sampler, map[string]string{argument: "0.01"}},
		{argument, map[string]string{sampler: "traceidratio", argument: "1%"}},
		{argument, map[string]string{sampler: "traceidratio", argument: "1.01"}},
		{argument, map[string]string{sampler: "parentbased_traceidratio", argument: "-0.1"}},
		{argument, map[string]string{sampler: "parentbased_traceidratio", argument: "NaN"}},
		{"OTEL_RESOURCE_ATTRIBUTES", map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "a=b,"}},
		{"OTEL_RESOURCE_ATTRIBUTES", map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "hunter2"}},
		{"OTEL_RESOURCE_ATTRIBUTES", map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "a=hunter2%zz"}},
		{"OTEL_RESOURCE_ATTRIBUTES", map[string]string{"OTEL_RESOURCE_ATTRIBUTES": " =hunter2"}},
		{authority, map[string]string{authority: "/hunter2/missing.pem"}},
		{authority, map[string]string{authority: file(t, []byte("hunter2"))}},
		{authority, map[string]string{authority: file(t, nil)}},
		{authority, map[string]string{authority: certificate, tracesEndpoint: "http://c"}},
		{"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": key}},
		{client, map[string]string{client: certificate}},
		{client, map[string]string{clientKey: key}},
		{client, map[string]string{client: certificate, clientKey: other}},
		{clientKey, map[string]string{client: certificate, clientKey: "-----BEGIN PRIVATE KEY-----hunter2"}},
	} {
		if err := Check(tt.env); err != nil && tt.env[tracesEndpoint] == "" {
			t.Errorf("%v without traces: %v", tt.env, err)
		}
		env := maps.Clone(tt.env)
		if env[tracesEndpoint] == "" {
			env[tracesEndpoint] = "https://c"
		}
		faults := fault.Of(Check(env))
		if len(faults) != 1 || faults[0].Field != tt.field || strings.Contains(faults.Error(), "hunter2") {
			t.Errorf("%v: %v, want one mistake in %s", env, faults, tt.field)
		}
	}
}

// TestCheckAll holds that all mistakes are told at once.
func TestCheckAll(t *testing.T) {
	t.Parallel()
	env := map[string]string{generalEndpoint: "http://u:hunter2@c", "OTEL_EXPORTER_OTLP_HEADERS": "hunter2",
		"OTEL_EXPORTER_OTLP_TIMEOUT": "x", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "/hunter2", "OTEL_TRACES_SAMPLER": "y",
		"OTEL_RESOURCE_ATTRIBUTES": "hunter2"}
	var fields []string
	for _, f := range fault.Of(Check(env)) {
		fields = append(fields, f.Field)
	}
	slices.Sort(fields)
	if want := slices.Sorted(maps.Keys(env)); !slices.Equal(slices.Compact(fields), want) {
		t.Errorf("mistakes in %v, want %v", fields, want)
	}
}

// TestHeadersStopNew holds that the SDK does not read headers that it would print to standard error. It sets variables and
// the SDK's way to report, which are the process's: it is not parallel.
func TestHeadersStopNew(t *testing.T) {
	logger, lines := logtest.New()
	report(logger)
	const name = "OTEL_EXPORTER_OTLP_HEADERS"
	t.Setenv(name, "authorization: Bearer hunter2")
	traces, err := New(t.Context(), "receiver", map[string]string{tracesEndpoint: "http://127.0.0.1:1", name: os.Getenv(name)}, logger)
	if traces != nil || err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") ||
		lines.String() != "" {
		t.Errorf("%v; logged %s", err, lines)
	}
}

// TestReport holds that what the SDK complains about is logged without values. Not parallel, for the same reason.
func TestReport(t *testing.T) {
	logger, lines := logtest.New()
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "hunter2") // and not in what New checks
	traces, err := New(t.Context(), "receiver", map[string]string{tracesEndpoint: "http://127.0.0.1:1"}, logger)
	if err != nil {
		t.Fatal(err)
	}
	defer traces.Close()
	otel.Handle(errors.New("hunter2"))
	if got := lines.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"OpenTelemetry: parse duration"`) ||
		!strings.Contains(got, `"OpenTelemetry failed","type":"*errors.errorString"`) || strings.Contains(got, "hunter2") {
		t.Errorf("logged %s", got)
	}
}

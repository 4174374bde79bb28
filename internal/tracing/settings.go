package tracing

import (
	"net/url"
	"strings"
)

const (
	generalEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	tracesEndpoint  = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	// localCollector is where traces go if the variables name no endpoint.
	localCollector = "http://localhost:4318/v1/traces"
)

// Check returns all mistakes in the OTEL_ variables for traces, each under its name, none if nothing asks for traces.
//
// The SDK would ignore most of them, and print some to standard error with their values, such as a collector's credentials.
func Check(env map[string]string) error {
	_, err := endpoint(env)
	return err
}

// endpoint returns the URL that spans are sent to, and "" if nothing asks for traces. Its error is that of [Check].
func endpoint(env map[string]string) (string, error) {
	if strings.EqualFold(strings.TrimSpace(env["OTEL_SDK_DISABLED"]), "true") {
		return "", nil
	}
	v := variables{env: env}
	switch exporter := env["OTEL_TRACES_EXPORTER"]; exporter {
	case "none":
		return "", nil
	case "otlp":
	case "":
		if env[generalEndpoint] == "" && env[tracesEndpoint] == "" {
			return "", nil
		}
	default:
		v.faults.AddNew(nil, "OTEL_TRACES_EXPORTER", "write otlp or none", "there is no exporter %q", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := env[name]; protocol == "http/protobuf" {
			break // the first one counts
		} else if protocol != "" {
			v.faults.AddNew(nil, name, "write http/protobuf, which collectors take on port 4318", "%q is not supported", protocol)
			break
		}
	}
	// Also the one that does not count, because the SDK parses both.
	v.url(generalEndpoint)
	v.url(tracesEndpoint)
	target := localCollector
	if env[tracesEndpoint] != "" {
		target = env[tracesEndpoint]
	} else if env[generalEndpoint] != "" {
		target = strings.TrimSuffix(env[generalEndpoint], "/") + "/v1/traces"
	}
	for _, prefix := range []string{"OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"} {
		v.headers(prefix + "HEADERS")
		v.number(prefix+"TIMEOUT", 0)
		v.compression(prefix + "COMPRESSION")
		v.certificates(prefix, strings.HasPrefix(strings.ToLower(target), "http:"))
	}
	v.batching()
	v.sampler("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG")
	v.resource("OTEL_RESOURCE_ATTRIBUTES")
	return target, v.faults.Err()
}

// url checks an endpoint. It is not shown: it may hold a password.
func (v *variables) url(name string) {
	value := v.env[name]
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		v.faults.AddNew(nil, name, "write one such as http://127.0.0.1:4318", "it is not a URL of http or https")
	case u.User != nil || strings.ContainsAny(value, "?#"):
		v.faults.AddNew(nil, name, "give credentials in OTEL_EXPORTER_OTLP_HEADERS",
			"it has a user, a query or a fragment, which are not sent to the collector")
	}
}

package tracing

import (
	"net/url"
	"strings"

	"upcall/internal/fault"
)

// usual is the endpoint that the exporter knows by itself.
const usual = "usual"

// Check returns all mistakes in the OTEL_ variables that say where traces go.
func Check(env map[string]string) error {
	_, err := endpoint(env)
	return err
}

// endpoint returns the URL that spans are sent to, usual if none is set, and "" if nothing asks for traces.
func endpoint(env map[string]string) (string, error) {
	if strings.EqualFold(strings.TrimSpace(env["OTEL_SDK_DISABLED"]), "true") {
		return "", nil
	}
	field, target := "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
	if target == "" && env["OTEL_EXPORTER_OTLP_ENDPOINT"] != "" {
		field, target = "OTEL_EXPORTER_OTLP_ENDPOINT", strings.TrimSuffix(env["OTEL_EXPORTER_OTLP_ENDPOINT"], "/")+"/v1/traces"
	}
	var faults fault.List
	switch exporter := env["OTEL_TRACES_EXPORTER"]; exporter {
	case "none":
		return "", nil
	case "otlp":
	case "":
		if target == "" {
			return "", nil
		}
	default:
		faults.AddNew(nil, "OTEL_TRACES_EXPORTER", "write otlp or none", "there is no exporter %q", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := env[name]; protocol == "http/protobuf" {
			break // the first one counts
		} else if protocol != "" {
			faults.AddNew(nil, name, "write http/protobuf, which collectors take on port 4318", "%q is not supported", protocol)
			break
		}
	}
	if target == "" {
		return usual, faults.Err()
	}
	if u, err := url.Parse(target); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// Not shown: it may hold a password.
		faults.AddNew(nil, field, "write one such as http://127.0.0.1:4318", "it is not a URL of http or https")
	}
	return target, faults.Err()
}

package tracing

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"upcall/internal/fault"
)

// mostNumber bounds numbers of spans and of milliseconds. The SDK allocates its queue at once.
const mostNumber = 10_000_000

// variables checks what the SDK reads from the environment by itself, by the same rules.
type variables struct {
	env    map[string]string
	faults fault.List
}

// value returns a variable as the exporter reads it.
func (v *variables) value(name string) string { return strings.TrimSpace(v.env[name]) }

// headers checks headers of the exporter. They hold credentials.
func (v *variables) headers(name string) {
	v.pairs(name, "a header", func(header, value string) bool {
		return httpguts.ValidHeaderFieldName(header) && httpguts.ValidHeaderFieldValue(value)
	})
}

// resource checks what is said of this program with each span.
func (v *variables) resource(name string) {
	v.pairs(name, "an attribute", func(key, _ string) bool { return key != "" })
}

// pairs checks a list of name=value. A pair that is written wrong may be a credential as a whole, so neither values nor
// names are shown.
func (v *variables) pairs(name, what string, valid func(key, value string) bool) {
	list := v.value(name)
	if list == "" {
		return
	}
	for i, pair := range strings.Split(list, ",") {
		key, escaped, found := strings.Cut(pair, "=")
		value, err := url.PathUnescape(escaped)
		if !found || err != nil || !valid(strings.TrimSpace(key), strings.TrimSpace(value)) {
			v.faults.AddNew(nil, name, "write name=value,name=value, with %2C for a comma and %25 for a percent sign in a value",
				"entry %d is not %s", i+1, what)
		}
	}
}

// batching checks the numbers that say how spans are batched. With less the SDK panics, spins or sends nothing.
func (v *variables) batching() {
	v.number("OTEL_BSP_SCHEDULE_DELAY", 1)
	v.number("OTEL_BSP_EXPORT_TIMEOUT", 0)
	v.number("OTEL_BSP_MAX_QUEUE_SIZE", 1)
	v.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1)
}

func (v *variables) number(name string, least int) {
	text := v.env[name] // with spaces, which not all readers remove
	if text == "" {
		return
	}
	if n, err := strconv.Atoi(text); err != nil || n < least || n > mostNumber {
		fix := "write a number of spans"
		if !strings.HasSuffix(name, "_SIZE") {
			fix = "write milliseconds, such as 10000"
		}
		v.faults.AddNew(nil, name, fix, "%q is not a whole number from %d to %d", text, least, mostNumber)
	}
}

func (v *variables) compression(name string) {
	if c := v.value(name); c != "" && c != "gzip" && c != "none" {
		v.faults.AddNew(nil, name, "write gzip or none", "there is no compression %q", c)
	}
}

// certificates checks the files for TLS. Paths are not shown: someone may have written the key itself.
func (v *variables) certificates(prefix string, plain bool) {
	authority, certificate, key := prefix+"CERTIFICATE", prefix+"CLIENT_CERTIFICATE", prefix+"CLIENT_KEY"
	if pem := v.file(authority); pem != nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		v.faults.AddAt(authority, "the file holds no certificate in PEM")
	}
	public, private := v.file(certificate), v.file(key)
	if public != nil && private != nil {
		if _, err := tls.X509KeyPair(public, private); err != nil {
			v.faults.AddAt(certificate, "the file holds no certificate in PEM for the key of %s", key)
		}
	}
	if (v.value(certificate) == "") != (v.value(key) == "") {
		v.faults.AddNew(nil, certificate, "set both or none", "it goes with %s", key)
	}
	for _, name := range []string{authority, certificate} {
		if plain && v.value(name) != "" {
			v.faults.AddNew(nil, name, "unset it, or write https", "the endpoint is one of http")
		}
	}
}

// file returns what is in the file that a variable names, nil if there is none.
func (v *variables) file(name string) []byte {
	path := v.value(name)
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		v.faults.AddNew(nil, name, "write the path of a file in PEM", "the file cannot be read: %v", errors.Unwrap(err))
		return nil
	}
	return data
}

// sampler checks which traces are kept. With a mistake the SDK would keep all.
func (v *variables) sampler(name, argument string) {
	text := v.value(argument)
	switch sampler := strings.ToLower(v.value(name)); sampler {
	case "always_on", "always_off", "parentbased_always_on", "parentbased_always_off":
	case "traceidratio", "parentbased_traceidratio":
		if ratio, err := strconv.ParseFloat(text, 64); text != "" && (err != nil || !(ratio >= 0 && ratio <= 1)) {
			v.faults.AddNew(nil, argument, "write 0.01 for one in a hundred", "%q is not a number from 0 to 1", text)
		}
	case "":
		if text != "" {
			v.faults.AddNew(nil, name, "write parentbased_traceidratio", "it is not set, so %s does nothing", argument)
		}
	default:
		v.faults.AddNew(nil, name, "write parentbased_traceidratio, or another that docs/monitoring.md lists",
			"there is no sampler %q", sampler)
	}
}

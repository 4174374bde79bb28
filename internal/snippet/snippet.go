// Package snippet writes the uploader's program: a short, complete program in one of several
// languages, with a presigned URL and its signed headers in it.
//
// Each program takes the file's path as its argument (the browser's page has a field for
// it), streams the file, sends the signed headers and no unsigned Content-Type, and follows
// no redirect. It prints the callback's answer and ends with 0, or writes the status and
// body of an error to stderr and ends with 1. Unlike most HTTP clients, it does not take
// 203 CallbackFailed for success.
//
// Anyone who has a program may upload until its URL expires.
package snippet

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/template"

	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/ossrule"
)

// The rules that [Check] and [Render] apply. A [fault.Fault] unwraps to one.
var (
	ErrLanguage    = errors.New("unknown language")
	ErrContentType = errors.New("missing content type")
	ErrDotSegment  = errors.New("key that the client would change")
	ErrMethod      = errors.New("method other than PUT")
	ErrURL         = errors.New("not a URL as presigning makes them")
	ErrHeader      = errors.New("header that would not arrive as it was signed")
)

// A program is one language's.
type program struct {
	language string
	text     *template.Template

	// ownType says that the client adds a Content-Type if it is given none, which breaks
	// a signature without one. Browsers send the file's type, Android's HttpURLConnection
	// application/x-www-form-urlencoded (AOSP, HttpURLConnectionImpl.java).
	ownType bool

	// resolvesDots says that the client resolves "." and ".." in a path, while the
	// signature covers them as they are.
	resolvesDots bool
}

//go:embed programs
var files embed.FS

var programs = []program{
	{language: "curl", text: parse("curl", shellWord)},
	{language: "python", text: parse("python", doubleQuoted), resolvesDots: true},
	{language: "java", text: parse("java", doubleQuoted)},
	{language: "go", text: parse("go", doubleQuoted)},
	{language: "node", text: parse("node", doubleQuoted), resolvesDots: true},
	{language: "browser", text: parse("browser", inScript), resolvesDots: true, ownType: true},
	{language: "csharp", text: parse("csharp", doubleQuoted), resolvesDots: true},
	{language: "cpp", text: parse("cpp", inCPP)},
	{language: "android", text: parse("android", doubleQuoted), resolvesDots: true, ownType: true},
	{language: "php", text: parse("php", singleQuoted)},
}

// parse reads the template of a language, in which quote makes a literal.
func parse(language string, quote func(string) string) *template.Template {
	name := language + ".tmpl"
	return template.Must(template.New(name).Funcs(template.FuncMap{"quote": quote}).ParseFS(files, "programs/"+name))
}

// Languages lists all that [Render] knows.
func Languages() []string {
	names := make([]string, len(programs))
	for i, p := range programs {
		names[i] = p.language
	}
	return names
}

// Check says, before anything is signed, why a program in this language could not upload
// this key with this Content-Type ("" if none is signed). The error joins all mistakes.
func Check(language, key, contentType string) error {
	p, err := find(language)
	if err != nil {
		return err
	}
	return p.check(strings.Split(key, "/"), contentType)
}

func find(language string) (program, error) {
	i := slices.IndexFunc(programs, func(p program) bool { return p.language == language })
	if i < 0 {
		return program{}, fault.New(ErrLanguage, "format", "use "+strings.Join(Languages(), ", "),
			"%q is not a known language", language)
	}
	return programs[i], nil
}

func (p program) check(segments []string, contentType string) error {
	var faults fault.List
	if p.ownType && contentType == "" {
		faults.AddNew(ErrContentType, "content-type", "give one, such as image/jpeg",
			"is empty, but a program for %s always sends one, and OSS refuses one that is not signed", p.language)
	}
	if p.resolvesDots && slices.ContainsFunc(segments, func(s string) bool { return s == "." || s == ".." }) {
		faults.AddNew(ErrDotSegment, "format", "choose another key, or curl, java, go, cpp or php",
			`a program for %s cannot send a key with "." or ".." between slashes as it was signed`, p.language)
	}
	return faults.Err()
}

// Render returns the program that sends a file by the presigned PUT r. The error joins all mistakes.
func Render(language string, r manifest.PresignedRequest) (string, error) {
	p, err := find(language)
	if err != nil {
		return "", err
	}
	segments, err := checkRequest(r)
	if err := fault.Join(err, p.check(segments, r.Headers["content-type"])); err != nil {
		return "", err
	}
	var b strings.Builder
	if err := p.text.Execute(&b, data{r}); err != nil {
		return "", fmt.Errorf("render %s program: %w", language, err)
	}
	return b.String(), nil
}

// checkRequest rejects what presigning does not make, because literals are correct only for
// printable ASCII. It returns the decoded segments of the path.
func checkRequest(r manifest.PresignedRequest) ([]string, error) {
	var faults fault.List
	if r.Method != "PUT" {
		faults.AddNew(ErrMethod, "method", "presign a PUT", "is %q", r.Method)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		value := r.Headers[name]
		// A line break would let the author of the value add headers.
		if name == "" || !ossrule.IsName(name) || value == "" || !printable(value) || strings.TrimSpace(value) != value {
			faults.AddNew(ErrHeader, fmt.Sprintf("header %.40q", name), "use lower-case names and printable ASCII",
				"is empty, or holds what no header can carry")
		}
	}
	path, err := checkURL(r.URL)
	return strings.Split(path, "/"), fault.Join(faults, err)
}

func checkURL(s string) (path string, err error) {
	parsed, err := url.Parse(s)
	if err != nil || !printable(s) || strings.ContainsAny(s, " \"'<>\\^`{|}") ||
		parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" || parsed.User != nil || parsed.Fragment != "" {
		return "", fault.New(ErrURL, "url", "presign one", "is not an absolute, percent-encoded HTTP URL")
	}
	return parsed.Path, nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// A data is the input of a template.
type data struct{ manifest.PresignedRequest }

// CallbackFailed says what 203 means.
func (data) CallbackFailed() string {
	return "203 CallbackFailed: the file is stored, but its callback failed: the application may not know of it"
}

type header struct{ Name, Value string }

// Line is the header as curl and its libraries take it.
func (h header) Line() string { return h.Name + ": " + h.Value }

// Sent lists the headers that a program sets, by name. The length comes from the file: another
// one would only break the connection, while OSS can reject the wrong size.
func (d data) Sent() []header {
	var headers []header
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		if name != "content-length" {
			headers = append(headers, header{name, d.Headers[name]})
		}
	}
	return headers
}

// TLS reports whether the URL is an https one.
func (d data) TLS() bool { return strings.HasPrefix(d.URL, "https:") }

// Curl is the command for the file that is a script's first argument.
func (d data) Curl() string { return Curl(d.PresignedRequest, `"$1"`) }

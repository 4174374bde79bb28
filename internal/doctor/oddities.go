package doctor

import (
	"fmt"
	"mime"
	"strings"

	"upcall/internal/callbackspec"
)

// The kinds that are told although nothing proves them.
var (
	MethodChanged = Kind{"method_changed", "the method is %s, and OSS sends POST: a redirect changes POST to GET and loses the body",
		noRedirect}
	BodyEmpty   = Kind{"body_empty", "the body is empty, but %s says that it was not", readBody}
	BodyMissing = Kind{"body_missing", "the body is empty, and OSS never sends an empty one", readBody}
	BodyNoBody  = Kind{"body_placeholder", "the body is %s, which programs write in place of a body that they did not read, or an object",
		readBody}
	BodyLength  = Kind{"body_length", "Content-Length says %d bytes, and the body has %d", keepBody}
	BodyLooks   = Kind{"body_looks_rewritten", "the body looks as if %s", keepBody}
	TypeChanged = Kind{"content_type_changed", "Content-Type is %s, and OSS sends application/x-www-form-urlencoded or application/json",
		"have the proxy and the framework pass Content-Type and body through unchanged"}
	TypeUnlike = Kind{"content_type_unlike_body", "Content-Type is %s, but the body is %s", keepBody}
	NotFromOSS = Kind{"user_agent", "User-Agent is %s, and OSS's is aliyun-oss-callback: a program sent the callback again, or made it up",
		"look at the request as OSS sent it"}
	Encoded = Kind{"content_encoding", "Content-Encoding is %s, and OSS compresses nothing", "turn off request compression in the proxy"}
)

const (
	noRedirect = "give OSS the URL that the redirect leads to (https instead of http, with or without a slash at the end), " +
		"or turn the redirect off"
	readBody = "look for a redirect, and for a filter, middleware or body parser that reads the body first; " +
		"verify the raw bytes before it"
)

// oddities tells what is odd about a request whose signature does not fit.
func (e *examination) oddities() {
	odd := func(kind Kind, args ...any) {
		e.report.Oddities = append(e.report.Oddities, Oddity{kind, fmt.Sprintf(kind.what, args...), kind.fix})
	}
	shown := func(name string) string { return shorten(Mark(e.capture.Get(name)), 100) }
	if e.request.Method != "POST" {
		odd(MethodChanged, shorten(Mark(e.request.Method), 100))
	}
	agent := strings.ToLower(e.capture.Get("User-Agent"))
	if agent != "" && !strings.Contains(agent, "aliyun") && !strings.Contains(agent, "ehttp-client") {
		odd(NotFromOSS, shown("User-Agent"))
	}
	if encoding := e.request.ContentEncoding; encoding != "" && !strings.EqualFold(encoding, "identity") {
		odd(Encoded, shown("Content-Encoding"))
	}
	if e.capture.NoBody {
		return
	}
	body, sent, length := string(e.request.Body), e.capture.Get("Content-MD5"), e.capture.length()
	switch {
	case body != "":
		if length >= 0 && length != len(body) {
			odd(BodyLength, length, len(body))
		}
	case sent != "" && sent != contentMD5(nil):
		odd(BodyEmpty, "Content-MD5")
	case length > 0:
		odd(BodyEmpty, "Content-Length")
	default:
		odd(BodyMissing)
	}
	if body == "" {
		return
	}
	e.oddContent(strings.TrimSpace(body), odd, shown)
}

// oddContent tells what is odd about a body that is not empty.
func (e *examination) oddContent(body string, odd func(Kind, ...any), shown func(string) string) {
	switch body {
	case "{}", "[]", "null", "undefined", "None", "nil", "[object Object]", "Array", "Array()", `""`, "<Buffer >", "b''", "map[]":
		odd(BodyNoBody, body)
		return
	}
	media, _, _ := mime.ParseMediaType(e.request.ContentType)
	switch callbackspec.BodyType(media) {
	case callbackspec.Form:
		if fieldsOf(body) != nil {
			odd(TypeUnlike, shown("Content-Type"), "JSON")
		}
	case callbackspec.JSON:
		if !isJSON(body) {
			odd(TypeUnlike, shown("Content-Type"), "no JSON object")
		}
	default:
		if e.request.ContentType != "" {
			odd(TypeChanged, shown("Content-Type"))
		}
	}
	switch {
	case keyOfBody(body) != nil:
		odd(BodyLooks, "a form parser took all of a JSON body for the name of one field")
	case decodeBase64(body) != nil:
		odd(BodyLooks, "a gateway encoded it in Base64 (isBase64Encoded)")
	case unwrap(body) != nil && strings.Contains(body, "eaders"):
		odd(BodyLooks, "it is a gateway's event, which contains the request")
	case strings.HasPrefix(body, "--") && strings.Contains(body, "form-data"):
		odd(BodyLooks, "a form was rewritten as multipart/form-data")
	case readPrinted(body) != nil && fieldsOf(body) == nil:
		odd(BodyLooks, "a program printed the parsed body")
	case strings.Contains(body, "imageInfo_"):
		odd(BodyLooks, "PHP parsed it: it writes _ for the dots in names")
	}
	for _, h := range holes(body) {
		odd(BodyLooks, fmt.Sprintf("a number was rounded: it was between %d and %d", h.lowest, h.highest))
		break
	}
	if strings.Contains(body, "9223372036854775807") {
		odd(BodyLooks, "a number was cut to 63 bits: 9223372036854775807 is the largest that some programs hold")
	}
}

package doctor

// A Kind is one way in which a callback is changed between OSS and the receiver, or
// signed differently from OSS.
type Kind struct {
	label     string // stable, in snake_case
	what, fix string // what happened, and what to do about it
}

func (k Kind) String() string               { return k.label }
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.label), nil }

// What to do about groups of kinds.
const (
	keepPath = "have the proxy pass the path through unchanged " +
		"(nginx: proxy_pass without a path; Traefik: no StripPrefix or ReplacePath; Kubernetes: no rewrite-target)"
	plainPath = keepPath + "; best use a callback path without percent escapes"
	keepQuery = "have the proxy pass the query through unchanged (nginx: $request_uri or proxy_pass without variables), " +
		"or give OSS a callback URL without a query"
	keepBody    = "verify the raw bytes, before any framework or gateway parses and rewrites the body; turn off body rewriting"
	decodeFirst = "verify the body that the event contains, decoded if isBase64Encoded is true; " +
		"no gateway may parse it as a form or JSON first"
	editor     = "if an editor, echo or a text-mode transfer made the capture, only the capture is damaged; else: " + keepBody
	keepHeader = "pass the header through unchanged"
	copyHeader = "copy the header in one piece; if the proxy folds it: " + keepHeader
	signer     = "no proxy does this: OSS signs differently, so fix the program that signed"
	replay     = "no proxy does this: someone is replaying a genuine signature with other content, and the receiver is right to refuse it"
	keepKeyURL = "pass x-oss-pub-key-url through unchanged; OSS always names its own key, so a request that does not may be forged"
	version1   = "pass x-oss-signature-version through unchanged, and leave signatureVersion out of the callback parameter"
)

// The kinds, by the part of the request that they are about.
var (
	PathPrefixStripped = Kind{"path_prefix_stripped", "a proxy stripped the beginning of the path", keepPath}
	PathPrefixAdded    = Kind{"path_prefix_added", "a proxy added something before the path", keepPath}
	PathReplaced       = Kind{"path_replaced", "a proxy replaced the path", keepPath}
	PathTrailingSlash  = Kind{"path_trailing_slash", "the slash at the end of the path was added or removed", keepPath}
	PathSlashes        = Kind{"path_slashes", "slashes in the path were doubled, merged or lost", keepPath + "; nginx: merge_slashes off"}
	PathDotSegments    = Kind{"path_dot_segments", "the path contains . or .. segments that OSS did not sign", keepPath}
	PathCase           = Kind{"path_case", "the case of letters in the path was changed", keepPath}
	PathIndexFile      = Kind{"path_index_file", "an index file was added to the path or removed from it", keepPath}
	PathEncodedAgain   = Kind{"path_encoded_again", "the path was percent-encoded once more on the way", keepPath}
	PathDecoded        = Kind{"path_decoded", "the path was decoded on the way, or the sender signs it undecoded", plainPath}
	PathPlus           = Kind{"path_plus", "a plus in the path was signed as a space, or became one", "use a callback path without a plus"}
	PathQueryMark      = Kind{"path_query_mark", "the question mark was percent-encoded, and so became part of the path", keepPath}
	PathParameters     = Kind{"path_parameters", "something after a semicolon, such as a session id, was added to the path", keepPath}
	PathControlBytes   = Kind{"path_control_bytes", "spaces or control characters got into the path", keepPath}
	PathBrokenEscape   = Kind{"path_broken_escape", "a broken percent escape got into the path", keepPath}
	PublicURL          = Kind{"public_url", "the public URL is wrong: OSS signed the path in the request", "unset UPCALL_PUBLIC_URL"}
	TargetForm         = Kind{"target_form", "the request target is neither a path nor an absolute URL", keepPath}
	BoundaryMoved      = Kind{"boundary_moved", "a line of the signed body was moved into the request target", replay}

	QueryLost         = Kind{"query_lost", "the query was lost", keepQuery}
	QueryAdded        = Kind{"query_added", "something was added to the query", keepQuery}
	QueryReplaced     = Kind{"query_replaced", "the query was replaced", keepQuery}
	QueryReordered    = Kind{"query_reordered", "the query parameters were reordered", keepQuery}
	QueryEncoding     = Kind{"query_reencoded", "the query was encoded or decoded on the way, or the sender signs it decoded", keepQuery}
	QueryEmptyValues  = Kind{"query_empty_values", "equals signs of empty query values were added or removed", keepQuery}
	QueryEntities     = Kind{"query_entities", "ampersands in the query became &amp;", keepQuery}
	QueryControlBytes = Kind{"query_control_bytes", "spaces or control characters got into the query", keepQuery}

	BodyLonger   = Kind{"body_longer", "the body continues past its Content-Length", "cut the capture there, or find what adds to it"}
	BodyCutShort = Kind{"body_cut_short", "the last byte of the body is missing",
		"find what cuts it off: the proxy, or the recording"}
	BodyAdded          = Kind{"body_added", "the body that OSS sent was empty", "give the callback parameter a callbackBody"}
	BodyNewlineAdded   = Kind{"body_newline_added", "a line break was added at the end of the body", editor}
	BodyNewlineRemoved = Kind{"body_newline_removed", "the line break at the end of the body was removed", keepBody}
	BodyLeadingNewline = Kind{"body_leading_newline", "a line break was added at the beginning of the body", keepBody}
	BodyBOMAdded       = Kind{"body_bom_added", "a byte order mark was added before the body", editor}
	BodyBOMRemoved     = Kind{"body_bom_removed", "the byte order mark before the body was removed", keepBody}
	BodyLineEndings    = Kind{"body_line_endings", "line endings in the body were changed between LF and CRLF", editor}
	BodyWhitespace     = Kind{"body_whitespace", "white space was added around the body", keepBody}
	BodyNUL            = Kind{"body_nul", "NUL bytes were added at the end of the body", "read Content-Length bytes, not a whole buffer"}
	BodyChunked        = Kind{"body_chunked", "the body still contains its chunk sizes",
		"decode Transfer-Encoding: chunked before the check"}
	BodyCompressed    = Kind{"body_compressed", "the body was compressed on the way", "turn off request compression in the proxy"}
	BodyReencoded     = Kind{"body_reencoded", "the form values were percent-encoded differently, or decoded", keepBody}
	BodyFormAsJSON    = Kind{"body_form_as_json", "the body was parsed as a form and rewritten as JSON", keepBody}
	BodyJSONRewritten = Kind{"body_json_rewritten", "the JSON was parsed and rewritten (spaces, escapes or numbers differ)", keepBody}
	BodyQuoted        = Kind{"body_quoted", "the body was quoted, as logs do", "record the raw bytes, not a log line"}
	BodyEntities      = Kind{"body_entities", "characters in the body became HTML entities", keepBody}
	BodyCharset       = Kind{"body_charset", "the body was converted to another charset", "handle the body as bytes, without conversion"}
	BodyNormalized    = Kind{"body_normalized", "the text was converted to another Unicode normalization form",
		"handle the body as bytes, without normalization"}
	BodyReordered  = Kind{"body_reordered", "the fields of the body were reordered", keepBody}
	BodyFieldAdded = Kind{"body_field_added", "fields were added to the body", keepBody}

	// What frameworks and gateways make of a body; where it was seen is in docs/verification.md.
	BodyBase64     = Kind{"body_base64", "the body is in Base64 (isBase64Encoded)", decodeFirst}
	BodyWrapped    = Kind{"body_wrapped", "the body is inside another one, such as a gateway's event", decodeFirst}
	BodyBytes      = Kind{"body_bytes", "the body was written as the numbers of its bytes", "record the bytes themselves"}
	BodyJSONAsForm = Kind{"body_json_as_form", "the JSON was parsed and rewritten as a form", keepBody}
	BodyMultipart  = Kind{"body_multipart", "the form was rewritten as multipart/form-data", keepBody}
	BodyPrinted    = Kind{"body_printed", "the body was parsed and printed as a program shows its variables",
		"record the raw bytes, not the parsed body"}
	BodyNames = Kind{"body_names", "names of fields were changed (PHP writes _ for dots; others nest them or change their case)",
		keepBody}
	BodyEmpties  = Kind{"body_empties", "fields with empty values were dropped, or their values became null, empty or 0", keepBody}
	BodyRounded  = Kind{"body_rounded", "a number was rounded to a float, as JavaScript does with crc64", keepBody}
	BodyNegative = Kind{"body_negative", "a number of 64 bits became negative", keepBody}

	SignatureBlanks     = Kind{"signature_blanks", "the Authorization header contains spaces or line breaks", copyHeader}
	SignatureScheme     = Kind{"signature_scheme", "the Authorization header has something before the signature", keepHeader}
	SignaturePadding    = Kind{"signature_padding", "the = signs after the signature were added or removed", keepHeader}
	SignatureQuoted     = Kind{"signature_quoted", "the Authorization header is in quotes", keepHeader}
	SignaturePercent    = Kind{"signature_percent", "the Authorization header was percent-encoded", keepHeader}
	SignaturePlus       = Kind{"signature_plus", "each + in the Authorization header became a space", keepHeader + ", without decoding"}
	SignatureAlphabet   = Kind{"signature_alphabet", "the Authorization header was converted to URL-safe Base64", keepHeader}
	SignatureHex        = Kind{"signature_hex", "the signature was converted to hexadecimal", keepHeader}
	SignatureLastBits   = Kind{"signature_last_bits", "the unused bits in the last character of the signature were changed", keepHeader}
	SignatureExtraBytes = Kind{"signature_extra_bytes", "bytes were added before or after the signature", keepHeader}
	SignatureReversed   = Kind{"signature_reversed", "the bytes of the signature are in reverse order", "reverse them before sending"}
	SignatureHeader     = Kind{"signature_header", "the signature came in another header", "have the gateway pass it on as Authorization"}
	SignatureVersion    = Kind{"signature_version", "the signature is of version 1.0, but x-oss-signature-version is not", version1}
	KeyURL              = Kind{"key_url", "x-oss-pub-key-url does not name the key that signed", keepKeyURL}

	SenderSeparator      = Kind{"sender_separator", "signed with something other than one LF between target and body", signer}
	SenderQueryMark      = Kind{"sender_query_mark", "signed with a ? although there is no query, or without one although there is", signer}
	SenderHexDigest      = Kind{"sender_hex_digest", "signed over the hexadecimal MD5 of the string instead of the string", signer}
	SenderReversedDigest = Kind{"sender_reversed_digest", "signed over the digest in reverse byte order", signer}
	SenderNothing        = Kind{"sender_nothing", "signed over nothing: the signature contains the digest of an empty string", signer}
)

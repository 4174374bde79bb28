package doctor

// A Kind is one way in which a callback is changed between OSS and the receiver, or
// signed differently from OSS. It is a stable label in snake_case.
type Kind string

// The kinds, by the part of the request that they are about.
const (
	PathPrefixStripped Kind = "path_prefix_stripped"
	PathPrefixAdded    Kind = "path_prefix_added"
	PathReplaced       Kind = "path_replaced"
	PathTrailingSlash  Kind = "path_trailing_slash"
	PathSlashes        Kind = "path_slashes"
	PathDotSegments    Kind = "path_dot_segments"
	PathCase           Kind = "path_case"
	PathIndexFile      Kind = "path_index_file"
	PathEncodedAgain   Kind = "path_encoded_again"
	PathDecoded        Kind = "path_decoded"
	PathPlus           Kind = "path_plus"
	PathQueryMark      Kind = "path_query_mark"
	PathControlBytes   Kind = "path_control_bytes"
	PathBrokenEscape   Kind = "path_broken_escape"
	PublicURL          Kind = "public_url"
	TargetForm         Kind = "target_form"
	BoundaryMoved      Kind = "boundary_moved"

	QueryLost         Kind = "query_lost"
	QueryAdded        Kind = "query_added"
	QueryReplaced     Kind = "query_replaced"
	QueryReordered    Kind = "query_reordered"
	QueryEncoding     Kind = "query_reencoded"
	QueryEmptyValues  Kind = "query_empty_values"
	QueryEntities     Kind = "query_entities"
	QueryControlBytes Kind = "query_control_bytes"

	BodyLonger         Kind = "body_longer"
	BodyCutShort       Kind = "body_cut_short"
	BodyAdded          Kind = "body_added"
	BodyNewlineAdded   Kind = "body_newline_added"
	BodyNewlineRemoved Kind = "body_newline_removed"
	BodyLeadingNewline Kind = "body_leading_newline"
	BodyBOMAdded       Kind = "body_bom_added"
	BodyBOMRemoved     Kind = "body_bom_removed"
	BodyLineEndings    Kind = "body_line_endings"
	BodyWhitespace     Kind = "body_whitespace"
	BodyNUL            Kind = "body_nul"
	BodyChunked        Kind = "body_chunked"
	BodyCompressed     Kind = "body_compressed"
	BodyReencoded      Kind = "body_reencoded"
	BodyFormAsJSON     Kind = "body_form_as_json"
	BodyJSONRewritten  Kind = "body_json_rewritten"
	BodyQuoted         Kind = "body_quoted"
	BodyEntities       Kind = "body_entities"
	BodyCharset        Kind = "body_charset"
	BodyReordered      Kind = "body_reordered"
	BodyFieldAdded     Kind = "body_field_added"

	SignatureBlanks     Kind = "signature_blanks"
	SignatureScheme     Kind = "signature_scheme"
	SignaturePadding    Kind = "signature_padding"
	SignatureQuoted     Kind = "signature_quoted"
	SignaturePercent    Kind = "signature_percent"
	SignaturePlus       Kind = "signature_plus"
	SignatureAlphabet   Kind = "signature_alphabet"
	SignatureHex        Kind = "signature_hex"
	SignatureLastBits   Kind = "signature_last_bits"
	SignatureExtraBytes Kind = "signature_extra_bytes"
	SignatureReversed   Kind = "signature_reversed"
	SignatureHeader     Kind = "signature_header"
	KeyURL              Kind = "key_url"
	SignatureVersion    Kind = "signature_version"

	SenderSeparator      Kind = "sender_separator"
	SenderQueryMark      Kind = "sender_query_mark"
	SenderHexDigest      Kind = "sender_hex_digest"
	SenderReversedDigest Kind = "sender_reversed_digest"
	SenderNothing        Kind = "sender_nothing"
)

// What to do about groups of kinds.
const (
	keepPath = "have the proxy pass the path through unchanged " +
		"(nginx: proxy_pass without a path; Traefik: no StripPrefix or ReplacePath; Kubernetes: no rewrite-target)"
	keepQuery = "have the proxy pass the query through unchanged (nginx: $request_uri or proxy_pass without variables), " +
		"or give OSS a callback URL without a query"
	keepBody   = "verify the raw bytes, before any framework or gateway parses and rewrites the body; turn off body rewriting"
	keepHeader = "pass the header through unchanged"
	signer     = "no proxy does this: OSS signs differently, so fix the program that signed"
)

// explanations say what each kind is, and what to do about it.
var explanations = map[Kind]struct{ what, fix string }{
	PathPrefixStripped: {"a proxy stripped the beginning of the path", keepPath},
	PathPrefixAdded:    {"a proxy added something before the path", keepPath},
	PathReplaced:       {"a proxy replaced the path", keepPath},
	PathTrailingSlash:  {"the slash at the end of the path was added or removed", keepPath},
	PathSlashes:        {"slashes in the path were doubled, merged or lost", keepPath + "; nginx: merge_slashes off"},
	PathDotSegments:    {"the path contains . or .. segments that OSS did not sign", keepPath},
	PathCase:           {"letters in the path were changed to upper case", keepPath},
	PathIndexFile:      {"an index file was added to the path or removed from it", keepPath},
	PathEncodedAgain:   {"the path was percent-encoded once more on the way", keepPath},
	PathDecoded:        {"the path was percent-decoded once on the way, or the sender signs it undecoded", keepPath + "; a callback path without percent escapes is best"},
	PathPlus:           {"the plus in the path was signed as a space", "use a callback path without a plus: programs disagree about it"},
	PathQueryMark:      {"the question mark was percent-encoded, and so became part of the path", keepPath},
	PathControlBytes:   {"spaces or control characters got into the path", keepPath},
	PathBrokenEscape:   {"a broken percent escape got into the path", keepPath},
	PublicURL:          {"the configured public URL is wrong: OSS signed the path in the request", "unset UPCALL_PUBLIC_URL"},
	TargetForm:         {"the request target is neither a path nor an absolute URL", keepPath},
	BoundaryMoved: {"a line of the signed body was moved into the request target",
		"no proxy does this: someone is replaying a genuine signature with other content, and the receiver is right to refuse it"},

	QueryLost:         {"the query was lost", keepQuery},
	QueryAdded:        {"something was added to the query", keepQuery},
	QueryReplaced:     {"the query was replaced", keepQuery},
	QueryReordered:    {"the query parameters were reordered", keepQuery},
	QueryEncoding:     {"the query was percent-encoded or decoded on the way, or the sender signs it decoded", keepQuery},
	QueryEmptyValues:  {"equals signs of empty query values were added or removed", keepQuery},
	QueryEntities:     {"ampersands in the query became &amp;", keepQuery},
	QueryControlBytes: {"spaces or control characters got into the query", keepQuery},

	BodyLonger:         {"the body continues past its Content-Length", "cut the capture there, or find what adds to the body"},
	BodyCutShort:       {"the last byte of the body is missing", "find what cuts the body off: the proxy, or the recording"},
	BodyAdded:          {"the body that OSS sent was empty", "give the callback parameter a callbackBody"},
	BodyNewlineAdded:   {"a line break was added at the end of the body", "if an editor or echo wrote the capture, only the capture is damaged; else: " + keepBody},
	BodyNewlineRemoved: {"the line break at the end of the body was removed", keepBody},
	BodyLeadingNewline: {"a line break was added at the beginning of the body", keepBody},
	BodyBOMAdded:       {"a byte order mark was added before the body", "if an editor saved the capture, only the capture is damaged; else: " + keepBody},
	BodyBOMRemoved:     {"the byte order mark before the body was removed", keepBody},
	BodyLineEndings:    {"line endings in the body were changed between LF and CRLF", "transfer the capture as binary; if the capture is not at fault: " + keepBody},
	BodyWhitespace:     {"white space was added around the body", keepBody},
	BodyNUL:            {"NUL bytes were added at the end of the body", "the reader takes its whole buffer for the body: read only Content-Length bytes"},
	BodyChunked:        {"the body still contains its chunk sizes", "decode Transfer-Encoding: chunked before the check"},
	BodyCompressed:     {"the body was compressed on the way", "turn off request compression in the proxy"},
	BodyReencoded:      {"the form values were percent-encoded differently (space and plus, case of the hex digits, or not at all)", keepBody},
	BodyFormAsJSON:     {"the form was parsed and rewritten as JSON", keepBody},
	BodyJSONRewritten:  {"the JSON was parsed and rewritten (spaces, escapes or numbers differ)", keepBody},
	BodyQuoted:         {"the body was quoted, as logs do", "record the raw bytes, not a log line"},
	BodyEntities:       {"characters in the body became HTML entities", keepBody},
	BodyCharset:        {"the body was converted to another charset", "handle the body as bytes; turn off charset conversion"},
	BodyReordered:      {"the fields of the body were reordered", keepBody},
	BodyFieldAdded:     {"fields were added to the body", keepBody},

	SignatureBlanks:     {"the Authorization header contains spaces or line breaks", "copy the header in one piece; if the proxy folds it: " + keepHeader},
	SignatureScheme:     {"the Authorization header has something before the signature", keepHeader},
	SignaturePadding:    {"the = signs at the end of the Authorization header were added or removed", keepHeader},
	SignatureQuoted:     {"the Authorization header is in quotes", keepHeader},
	SignaturePercent:    {"the Authorization header was percent-encoded", keepHeader},
	SignaturePlus:       {"each + in the Authorization header became a space", keepHeader + ", and do not decode headers as forms"},
	SignatureAlphabet:   {"the Authorization header was converted to URL-safe Base64", keepHeader},
	SignatureHex:        {"the signature was converted to hexadecimal", keepHeader},
	SignatureLastBits:   {"the unused bits in the last character of the signature were changed", keepHeader},
	SignatureExtraBytes: {"bytes were added before or after the signature", keepHeader},
	SignatureReversed:   {"the bytes of the signature are in reverse order", "reverse them before sending: some crypto libraries return the lowest byte first"},
	SignatureHeader:     {"the signature came in another header", "have the gateway pass it through as Authorization"},
	KeyURL:              {"x-oss-pub-key-url does not name the key that signed", "pass x-oss-pub-key-url through unchanged; OSS always names its own key, so a request that does not may be forged"},
	SignatureVersion:    {"x-oss-signature-version is not 1.0, although the signature is of version 1.0", "pass x-oss-signature-version through unchanged, and leave signatureVersion out of the callback parameter"},

	SenderSeparator:      {"signed with something other than one LF between target and body", signer},
	SenderQueryMark:      {"signed with a question mark although there is no query, or without one although there is", signer},
	SenderHexDigest:      {"signed over the hexadecimal MD5 of the string instead of the string", signer},
	SenderReversedDigest: {"signed over the digest in reverse byte order", signer},
	SenderNothing:        {"signed over nothing: the signature holds the digest of an empty string", signer},
}

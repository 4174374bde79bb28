package doctor

// A Kind is one way in which a callback is changed between OSS and the receiver, or
// signed otherwise than OSS does. It is a stable label in snake_case.
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

// What to do about whole groups of kinds.
const (
	keepPath   = "have the proxy pass the path on as it came (nginx: proxy_pass without a path; Traefik: no StripPrefix or ReplacePath; Kubernetes: no rewrite-target)"
	keepQuery  = "have the proxy pass the query on as it came (nginx: $request_uri or proxy_pass without variables), or give OSS a callback URL without a query"
	keepBody   = "verify the raw bytes, before any framework or gateway parses and rewrites the body; switch body rewriting off"
	keepHeader = "pass the header on as it came"
	signer     = "this is no proxy's doing: OSS signs otherwise, so fix the program that signed"
)

// explanations say what each kind is, and what to do about it.
var explanations = map[Kind]struct{ what, fix string }{
	PathPrefixStripped: {"a proxy stripped the beginning of the path", keepPath},
	PathPrefixAdded:    {"a proxy put something before the path", keepPath},
	PathReplaced:       {"a proxy replaced the path", keepPath},
	PathTrailingSlash:  {"the slash at the end of the path was added or taken away", keepPath},
	PathSlashes:        {"slashes of the path were doubled, merged or lost", keepPath + "; nginx: merge_slashes off"},
	PathDotSegments:    {"the path has . or .. in it that OSS did not sign", keepPath},
	PathCase:           {"letters of the path were made upper case", keepPath},
	PathIndexFile:      {"an index file was added to the path or taken away", keepPath},
	PathEncodedAgain:   {"the path was percent-encoded once more than OSS sent it", keepPath},
	PathDecoded:        {"the path was percent-decoded once on the way, or the sender signs it undecoded", keepPath + "; best is a callback path without percent escapes"},
	PathPlus:           {"the plus in the path was signed as a space", "use a callback path without a plus: programs disagree about it"},
	PathQueryMark:      {"the question mark was percent-encoded, and so became part of the path", keepPath},
	PathControlBytes:   {"blanks or control bytes got into the path", keepPath},
	PathBrokenEscape:   {"a broken percent escape got into the path", keepPath},
	PublicURL:          {"the public URL that is set is wrong: OSS signed the path that the request came with", "take UPCALL_PUBLIC_URL away"},
	TargetForm:         {"the request target is neither a path nor an absolute URL", keepPath},
	BoundaryMoved: {"a line of the signed body was moved into the request target",
		"no proxy does that: somebody replays a genuine signature with other content, and the receiver is right to refuse it"},

	QueryLost:         {"the query was lost", keepQuery},
	QueryAdded:        {"something was added to the query", keepQuery},
	QueryReplaced:     {"the query was replaced", keepQuery},
	QueryReordered:    {"the query was put into another order", keepQuery},
	QueryEncoding:     {"the query was percent-encoded or decoded on the way, or the sender signs it decoded", keepQuery},
	QueryEmptyValues:  {"equals signs of empty values in the query were added or taken away", keepQuery},
	QueryEntities:     {"ampersands of the query became &amp;", keepQuery},
	QueryControlBytes: {"blanks or control bytes got into the query", keepQuery},

	BodyLonger:         {"the body goes on behind the length that Content-Length says", "cut the capture there, or look for what adds to the body"},
	BodyCutShort:       {"the last byte of the body is missing", "look for what cuts the body, in the proxy or in the recording"},
	BodyAdded:          {"the body that OSS sent was empty", "give the callback parameter a callbackBody"},
	BodyNewlineAdded:   {"a line break was added at the end of the body", "if an editor or echo wrote the capture, only the capture is damaged; else: " + keepBody},
	BodyNewlineRemoved: {"the line break at the end of the body was taken away", keepBody},
	BodyLeadingNewline: {"a line break was added at the beginning of the body", keepBody},
	BodyBOMAdded:       {"a byte order mark was put before the body", "if an editor saved the capture, only the capture is damaged; else: " + keepBody},
	BodyBOMRemoved:     {"the byte order mark before the body was taken away", keepBody},
	BodyLineEndings:    {"line ends of the body were changed between LF and CRLF", "transfer the capture in binary; if it is not the capture: " + keepBody},
	BodyWhitespace:     {"blanks were added around the body", keepBody},
	BodyNUL:            {"NUL bytes were added at the end of the body", "the reader takes a whole buffer for the body: take Content-Length bytes"},
	BodyChunked:        {"the body still has the sizes of its chunks in it", "decode Transfer-Encoding: chunked before the check"},
	BodyCompressed:     {"the body was compressed on the way", "switch request compression off in the proxy"},
	BodyReencoded:      {"the values of the form were percent-encoded anew (space and plus, case of the hex digits, or not at all)", keepBody},
	BodyFormAsJSON:     {"the form was parsed and written again as JSON", keepBody},
	BodyJSONRewritten:  {"the JSON was parsed and written again (blanks, escapes or numbers differ)", keepBody},
	BodyQuoted:         {"the body was quoted, as logs do", "record the raw bytes, not a log line"},
	BodyEntities:       {"characters of the body became HTML entities", keepBody},
	BodyCharset:        {"the body was converted to another charset", "handle the body as bytes; switch charset conversion off"},
	BodyReordered:      {"the fields of the body were put into another order", keepBody},
	BodyFieldAdded:     {"fields were added to the body", keepBody},

	SignatureBlanks:     {"the Authorization header has blanks or line breaks in it", "copy the header in one piece; if the proxy folds it: " + keepHeader},
	SignatureScheme:     {"something stands before the signature in the Authorization header", keepHeader},
	SignaturePadding:    {"the = at the end of the Authorization header were added or taken away", keepHeader},
	SignatureQuoted:     {"the Authorization header is in quotes", keepHeader},
	SignaturePercent:    {"the Authorization header was percent-encoded", keepHeader},
	SignaturePlus:       {"each + of the Authorization header became a space", keepHeader + ", and decode no header as a form"},
	SignatureAlphabet:   {"the Authorization header was put into Base64's alphabet for URLs", keepHeader},
	SignatureHex:        {"the signature was put into hexadecimal", keepHeader},
	SignatureLastBits:   {"the last letter of the signature was changed where it stands for no byte", keepHeader},
	SignatureExtraBytes: {"bytes were added before or after the signature", keepHeader},
	SignatureReversed:   {"the bytes of the signature are in the other order", "turn them round before they are sent: some crypto libraries give the lowest first"},
	SignatureHeader:     {"the signature came in another header", "have the gateway pass it on as Authorization"},
	KeyURL:              {"x-oss-pub-key-url does not name the key that signed", "pass x-oss-pub-key-url on as it came; OSS always names its own key, so a request that does not may be a forger's"},
	SignatureVersion:    {"x-oss-signature-version is not 1.0, but the signature is of that version", "pass x-oss-signature-version on as it came, and leave signatureVersion out of the callback parameter"},

	SenderSeparator:      {"signed with another separator than one LF between target and body", signer},
	SenderQueryMark:      {"signed with a question mark where there is no query, or without one where there is", signer},
	SenderHexDigest:      {"signed over the hexadecimal MD5 of the string, not over the string", signer},
	SenderReversedDigest: {"signed over the digest in the other byte order", signer},
	SenderNothing:        {"signed over nothing: the signature holds the digest of an empty string", signer},
}

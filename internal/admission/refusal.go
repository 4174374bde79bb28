package admission

// A Refusal is why a callback is not accepted.
type Refusal struct {
	Code    Code
	Reason  Reason
	Message string // for the sender
	Cause   error  // for the log alone; may be nil
}

// HeadersTooLarge refuses a request with more than MaxHeaders. It is exported because
// servers have a limit of their own.
var HeadersTooLarge = &Refusal{TooLarge, ReasonHeaders, "the headers are larger than 64 KiB", nil}

// A Code is the part of a refusal on which a sender may branch.
type Code string

const (
	Malformed        Code = "malformed"
	BadSignature     Code = "bad_signature"
	UntrustedKey     Code = "untrusted_key"
	BadToken         Code = "bad_token"
	ExpiredToken     Code = "expired_token"
	WrongBucket      Code = "wrong_bucket"
	NotFound         Code = "not_found"
	MethodNotAllowed Code = "method_not_allowed"
	TooLarge         Code = "too_large"
	UnsupportedType  Code = "unsupported_type"
	Unavailable      Code = "unavailable"
)

// A Reason is the label of a refusal in the log, the metrics and upcall.refused_callbacks.
// For a signature that is wrong or cannot be checked, the reason is that of package verify.
type Reason string

// What may be wrong with a request.
const (
	ReasonPath               Reason = "path"
	ReasonMethod             Reason = "method"
	ReasonHeaders            Reason = "headers"
	ReasonContentEncoding    Reason = "content_encoding"
	ReasonContentType        Reason = "content_type"
	ReasonBody               Reason = "body" // too large, or malformed
	ReasonBucketConflict     Reason = "bucket_conflict"
	ReasonBucketMalformed    Reason = "bucket_malformed"
	ReasonBucketNotAllowed   Reason = "bucket_not_allowed"
	ReasonTokenMissing       Reason = "token_missing"
	ReasonTokenForged        Reason = "token_forged"
	ReasonTokenForeignBucket Reason = "token_foreign_bucket"
	ReasonTokenForeignKey    Reason = "token_foreign_key"
	ReasonTokenForeignVars   Reason = "token_foreign_vars"
	ReasonTokenForeignType   Reason = "token_foreign_type"
	ReasonTokenForeignSize   Reason = "token_foreign_size"
	ReasonTokenExpired       Reason = "token_expired"
)

// Why a receiver may be unable to accept a request.
const (
	ReasonBodyCutShort     Reason = "body_cut_short" // the connection ended or stalled
	ReasonTokenOverused    Reason = "token_overused"
	ReasonTokenRevoked     Reason = "token_revoked"
	ReasonNotStorable      Reason = "not_storable"
	ReasonDatabase         Reason = "database"
	ReasonSpoolFull        Reason = "spool_full"
	ReasonSpoolUnwritable  Reason = "spool_unwritable"
	ReasonStreamFull       Reason = "stream_full"
	ReasonStreamUnwritable Reason = "stream_unwritable"
	ReasonDeadline         Reason = "deadline"
	ReasonInternal         Reason = "internal"
	ReasonPanic            Reason = "panic"
)

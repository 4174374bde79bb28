package callbackspec

import (
	"errors"
	"fmt"

	"upcall/internal/fault"
)

// The rules that OSS applies to the two documents. A [fault.Fault] of a document has one,
// and in Field the JSON name, e.g. "callbackUrl" or "x:uid".
var (
	ErrNotBase64        = errors.New("not standard Base64")
	ErrNotJSON          = errors.New("not a JSON document of the right shape")
	ErrTooLarge         = errors.New("larger than 5 KB")
	ErrNoURL            = errors.New("no callback URL")
	ErrURLCount         = errors.New("more than five callback URLs")
	ErrURL              = errors.New("not an HTTP or HTTPS URL")
	ErrPort             = errors.New("port is not a number from 1 to 65535")
	ErrNotASCII         = errors.New("character that must be percent-encoded")
	ErrIPv6             = errors.New("IPv6 address")
	ErrPrivateAddress   = errors.New("address that OSS cannot reach")
	ErrHost             = errors.New("not a host name")
	ErrEmptyBody        = errors.New("empty callback body")
	ErrBodyType         = errors.New("unknown body type")
	ErrTemplate         = errors.New("template syntax")
	ErrVarName          = errors.New("name of a custom variable")
	ErrVarValue         = errors.New("value of a custom variable")
	ErrSignatureVersion = errors.New("unsupported signature version")
	ErrAdditionalHeader = errors.New("additional header")
)

// The two reasons why [Parse] refuses a callback's body.
var (
	// ErrUnsupportedType means that the Content-Type is neither of OSS's two.
	ErrUnsupportedType = errors.New("unsupported content type")
	// ErrMalformed means that the body does not match its Content-Type, or that a field has
	// a value of the wrong type.
	ErrMalformed = errors.New("malformed callback body")
)

// A bodyError is an error of [Parse] that wraps ErrMalformed.
type bodyError struct{ problem, fix string }

func (e *bodyError) Error() string { return ErrMalformed.Error() + ": " + e.problem }
func (e *bodyError) Unwrap() error { return ErrMalformed }

// Fix says what to change in the template if [Parse] refuses what OSS makes of it.
func Fix(err error) string {
	if e, ok := errors.AsType[*bodyError](err); ok {
		return e.fix
	}
	return anyTemplate
}

func malformed(format string, args ...any) error {
	return malformedTemplate(anyTemplate, format, args...)
}

func malformedTemplate(fix, format string, args ...any) error {
	return &bodyError{fmt.Sprintf(format, args...), fix}
}

func fieldTwice(name string) error {
	return malformedTemplate("name each field once", "field %s appears twice", fault.Name(name))
}

func useVariable(variable string) string {
	if variable == TokenField {
		variable = TokenVar
	}
	return "let the field hold ${" + variable + "} and nothing else, rename it, or map its name with the receiver's UPCALL_FIELDS"
}

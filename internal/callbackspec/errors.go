package callbackspec

import (
	"errors"
	"fmt"
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

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

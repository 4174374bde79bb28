package oss

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// Credentials are what requests are signed with.
type Credentials struct {
	AccessKeyID, AccessKeySecret string

	// SessionToken belongs to temporary (STS) credentials; "" means permanent ones.
	SessionToken string

	// Expires is when temporary credentials end. Zero where that is not known.
	Expires time.Time
}

// A Source provides credentials whenever something is signed. It caches them while they are
// valid, unless fresh ones are asked for. Several goroutines may use it.
type Source func(ctx context.Context, fresh bool) (Credentials, error)

// metadataTimeout and metadataTries limit the wait for the metadata service, which answers
// within milliseconds or, outside Alibaba Cloud, never.
const (
	metadataTimeout = 2 * time.Second
	metadataTries   = 2
)

// ECSRole provides the temporary credentials of the RAM role of the ECS instance that the
// program runs on, renewed in time. An empty role means the one that the instance has.
func ECSRole(role string) Source {
	return provided("take credentials from the metadata service of ECS", func() credentials.CredentialsProvider {
		return credentials.NewEcsRoleCredentialsProvider(
			credentials.EcsRamRole(role),
			func(o *credentials.EcsRoleCredentialsProviderOptions) {
				o.Timeout, o.Retries = metadataTimeout, metadataTries
			})
	})
}

// Process provides the credentials that a shell command prints: a JSON object with
// AccessKeyId, AccessKeySecret and, for temporary ones, SecurityToken and Expiration
// in RFC 3339. The command runs again when they end.
func Process(command string) Source {
	process := credentials.NewProcessCredentialsProvider(command)
	return provided("take credentials from the command", func() credentials.CredentialsProvider {
		return credentials.NewCredentialsFetcherProvider(credentials.CredentialsFetcherFunc(process.GetCredentials))
	})
}

// provided turns providers of the SDK into a source. A provider keeps what it got until it
// expires, and if it does not know when, until the end; a new one asks again.
func provided(doing string, newProvider func() credentials.CredentialsProvider) Source {
	var mu sync.Mutex
	provider := newProvider()
	choose := func(fresh bool) credentials.CredentialsProvider {
		mu.Lock()
		defer mu.Unlock()
		if fresh {
			provider = newProvider()
		}
		return provider
	}
	return func(ctx context.Context, fresh bool) (Credentials, error) {
		got, err := choose(fresh).GetCredentials(ctx)
		if err == nil && !fresh && got.Expires != nil && time.Until(*got.Expires) < ossrule.MinExpiry {
			got, err = choose(true).GetCredentials(ctx) // too short for a URL
		}
		if err != nil {
			// The SDK's error holds an answer that lacks a field, whose other field may be
			// the secret.
			text, _, _ := strings.Cut(err.Error(), ", response body is")
			return Credentials{}, fmt.Errorf("%s: %s", doing, strings.ReplaceAll(text, "\n", " "))
		}
		c := Credentials{AccessKeyID: got.AccessKeyID, AccessKeySecret: got.AccessKeySecret, SessionToken: got.SecurityToken}
		if got.Expires != nil {
			c.Expires = *got.Expires
		}
		return c, nil
	}
}

// check returns all mistakes, joined. from says where a field of the credentials comes
// from.
func (c Credentials) check(from func(field string) string) error {
	check := func(field, value string, required bool) error {
		switch {
		case value == "" && required:
			return fault.New(ErrCredentials, field, "set "+from(field), "is not set")
		// The value is never shown: it may be the secret with one stray character.
		case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
			return fault.New(ErrCredentials, field, "check how it was copied to "+from(field),
				"holds a space, a line break or a character that is not ASCII")
		}
		return nil
	}
	return fault.Join(
		check("access key id", c.AccessKeyID, true),
		check("access key secret", c.AccessKeySecret, true),
		check("session token", c.SessionToken, false))
}

// variable names the environment variables of a field of the credentials.
func variable(field string) string {
	name := "OSS_" + strings.ToUpper(strings.ReplaceAll(field, " ", "_"))
	return name + " or " + name + "_FILE"
}

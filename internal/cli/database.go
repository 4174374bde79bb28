package cli

import (
	"upcall/internal/fault"
	"upcall/internal/uploadtoken"
)

// DatabaseFlags say where PostgreSQL is. The program sets the flag's help text in
// ${database_url_help}.
type DatabaseFlags struct {
	DatabaseURL string `name:"database-url" placeholder:"URL" help:"${database_url_help}"`
}

// URL returns the database's URL from the flag, or else from UPCALL_DATABASE_URL or
// DATABASE_URL, or the files that these variables with _FILE added name; "" if none is set.
func (f *DatabaseFlags) URL(env Env) (string, error) {
	url, err := Secret(f.DatabaseURL, env, "UPCALL_DATABASE_URL")
	if err != nil || url != "" {
		return url, err
	}
	return Secret("", env, "DATABASE_URL")
}

// TokenKeys returns the keys of upload tokens from the flag, or else from
// UPCALL_TOKEN_KEYS or its file; nil if none is set.
func TokenKeys(flag string, env Env) (*uploadtoken.Keyring, error) {
	keys, err := Secret(flag, env, "UPCALL_TOKEN_KEYS")
	if err != nil || keys == "" {
		return nil, err
	}
	ring, err := uploadtoken.ParseKeys(keys)
	return ring, fault.In("UPCALL_TOKEN_KEYS", err)
}

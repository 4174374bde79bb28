package api

import (
	"context"
	"net/http"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
)

// A Role says what a key may do.
type Role string

const (
	Viewer   Role = "viewer"   // reads
	Operator Role = "operator" // changes endpoints of hooks and dead letters, too
)

// ParseRole reads a role.
func ParseRole(text string) (Role, error) {
	switch role := Role(text); role {
	case Viewer, Operator:
		return role, nil
	}
	return "", fault.New(nil, "", "use viewer or operator", "%s is not a role", fault.Quote(text))
}

// Keys are the stored keys. They are an interface so that tests can make them fail.
type Keys interface {
	// List returns all keys, including revoked ones.
	List(ctx context.Context) ([]eventstore.APIKey, error)
}

// A keyring knows the keys that are valid.
type keyring = apikey.Ring[Role]

func newKeyring(keys Keys, now func() time.Time) *keyring {
	return apikey.NewRing(func(ctx context.Context) ([]apikey.Holder[Role], error) {
		all, err := keys.List(ctx)
		if err != nil {
			return nil, err
		}
		var valid []apikey.Holder[Role]
		for _, key := range all {
			role, err := ParseRole(key.Role)
			if err != nil || !key.RevokedAt.IsZero() || len(key.Hash) != len(apikey.Hash{}) {
				continue // a newer program's, revoked, or no secret can match it
			}
			valid = append(valid, apikey.Holder[Role]{ID: key.ID, Hash: apikey.Hash(key.Hash), Owns: role})
		}
		return valid, nil
	}, now)
}

// authorize returns the id of the key in a request, or a problem if it is not valid or has too
// little right.
func (s *Server) authorize(r *http.Request, need Role) (id string, err error) {
	who, ok := r.Context().Value(whoKey{}).(Who)
	if !ok {
		who = func(ctx context.Context) (Caller, error) { return s.caller(s.keys.Check(ctx, r.Header)) }
	}
	caller, err := who(r.Context())
	if err != nil {
		return "", err
	}
	if need == Operator && caller.Role != Operator {
		return caller.ID, &problem{kind: kindForbidden, detail: "the key has the role " + string(caller.Role) + "; this needs operator"}
	}
	return caller.ID, nil
}

// A Caller has a key.
type Caller struct {
	ID   string
	Role Role
	hash apikey.Hash
}

// Who returns the caller of a request that carries no key, as often as it is asked. The error wraps
// apikey.ErrInvalid, or says that the keys cannot be read.
type Who func(context.Context) (Caller, error)

// whoKey is the key of a Who in a context. No request from outside can have one.
type whoKey struct{}

// ServeAs answers a request as that of someone who was recognized otherwise, by the same handlers and with the same checks.
func (s *Server) ServeAs(w http.ResponseWriter, r *http.Request, who Who) {
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
}

// Recognize returns who has a key.
func (s *Server) Recognize(ctx context.Context, key string) (Caller, error) {
	return s.caller(s.keys.Check(ctx, http.Header{"Authorization": {"Bearer " + key}}))
}

// Still returns a caller with the role that their key has now. Errors are those of [Who].
func (s *Server) Still(ctx context.Context, c Caller) (Caller, error) {
	return s.caller(s.keys.Valid(ctx, c.ID, c.hash))
}

func (*Server) caller(holder *apikey.Holder[Role], err error) (Caller, error) {
	if err != nil {
		return Caller{}, err
	}
	return Caller{holder.ID, holder.Owns, holder.Hash}, nil
}

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
	Operator Role = "operator" // changes endpoints of hooks, too
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
	holder, err := s.keys.Check(r.Context(), r.Header)
	if err != nil {
		return "", err
	}
	if need == Operator && holder.Owns != Operator {
		return holder.ID, &problem{kind: kindForbidden, detail: "the key has the role " + string(holder.Owns) + "; this needs operator"}
	}
	return holder.ID, nil
}

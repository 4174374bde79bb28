package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"upcall/internal/natsserver"
	"upcall/internal/testing/fallbacktest"
	"upcall/internal/testing/natstest"
)

// An operator signs accounts, as nsc does.
type operator struct {
	keys, account nkeys.KeyPair
	settings      string // of the servers
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newOperator makes an operator with an account that may use JetStream, and the one of the system.
func newOperator(t *testing.T) *operator {
	pair, text := must[nkeys.KeyPair](t), must[string](t)
	o := &operator{keys: pair(nkeys.CreateOperator()), account: pair(nkeys.CreateAccount())}
	system := pair(nkeys.CreateAccount())
	public := func(k nkeys.KeyPair) string { return text(k.PublicKey()) }
	sign := func(name string, k nkeys.KeyPair, change func(*jwt.AccountClaims)) string {
		claims := jwt.NewAccountClaims(public(k))
		claims.Name = name
		change(claims)
		return text(claims.Encode(o.keys))
	}
	upcall := sign("upcall", o.account, func(c *jwt.AccountClaims) {
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, Streams: -1, Consumer: -1}
	})
	claims := jwt.NewOperatorClaims(public(o.keys))
	claims.SystemAccount = public(system)
	o.settings = fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: { %s: %s, %s: %s }\n",
		text(claims.Encode(o.keys)), public(system), public(o.account), upcall, public(system), sign("SYS", system, func(*jwt.AccountClaims) {}))
	return o
}

// creds returns a file for a user of the account.
func (o *operator) creds(t *testing.T, change func(*jwt.UserClaims)) string {
	user := must[nkeys.KeyPair](t)(nkeys.CreateUser())
	claims := jwt.NewUserClaims(must[string](t)(user.PublicKey()))
	change(claims)
	token := must[string](t)(claims.Encode(o.account))
	content := must[[]byte](t)(jwt.FormatUserConfig(token, must[[]byte](t)(user.Seed())))
	path := filepath.Join(t.TempDir(), "upcall.creds")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// least is what docs/stream.md says that the user of receivers needs.
func least(name string) func(*jwt.UserClaims) {
	return func(c *jwt.UserClaims) {
		c.Pub.Allow.Add("$JS.API.>", "$JS.ACK."+name+".>", name+".>")
		c.Sub.Allow.Add("_INBOX.>")
	}
}

// TestCredsFile: a receiver works with the credentials of a user that has the least rights, and says at the start what
// is wrong with others.
func TestCredsFile(t *testing.T) {
	t.Parallel()
	o, other := newOperator(t), newOperator(t)
	c := natstest.Start(t, func(c *natsserver.Config) { c.More = o.settings })
	config, _ := config(t, c)
	config.CredsFile = o.creds(t, least(config.Name))
	s := open(t, config)
	fill(t, s, 0, 20)
	m := new(fallbacktest.Memory)
	moveAll(t, s, m, 10)
	if len(m.Events) != 20 || m.Repeat != 0 {
		t.Errorf("%d events, %d repeats: the servers take no acknowledgements", len(m.Events), m.Repeat)
	}
	for name, file := range map[string]string{
		"of another operator": other.creds(t, least(config.Name)),
		"expired":             o.creds(t, func(c *jwt.UserClaims) { c.Expires = time.Now().Add(-time.Hour).Unix() }),
	} {
		config.CredsFile = file
		if _, err := Open(t.Context(), config); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "refuse the credentials") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	config.CredsFile = o.creds(t, func(c *jwt.UserClaims) {
		least(config.Name)(c)
		c.Pub.Deny.Add(config.Name + ".>")
	})
	s = open(t, config)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.Put(ctx, numbered(1)); err == nil || !strings.Contains(err.Error(), "ermissions") {
		t.Errorf("put without the right to publish: %v", err)
	}
}

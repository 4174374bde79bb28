package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/eventstore"
)

// makeKeys makes what the upload page and the console ask for. The keys are kept beside the database, so
// that they are the same the next time.
func (l *loop) makeKeys(ctx context.Context, opts *command) error {
	if !opts.Stay {
		return nil
	}
	pool, err := eventstore.Open(ctx, l.databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	l.pageKey, err = keptKey(ctx, eventstore.NewAPIKeys(pool), filepath.Join(opts.DataDir, "page.key"),
		eventstore.APIKey{ID: "page", Policy: "demo"})
	if err != nil {
		return err
	}
	l.operatorKey, err = keptKey(ctx, eventstore.NewRoleKeys(pool), filepath.Join(opts.DataDir, "operator.key"),
		eventstore.APIKey{ID: "operator", Role: "operator"})
	return err
}

// keptKey returns the key in a file, or a new one if there is none or the database does not know it.
func keptKey(ctx context.Context, keys *eventstore.APIKeys, path string, key eventstore.APIKey) (string, error) {
	kept, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read key: %w", err)
	}
	known, err := keys.List(ctx)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(kept))
	if id, secret, err := apikey.Parse(text); err == nil {
		hash := secret.Hash()
		for _, one := range known {
			if one.ID == id && bytes.Equal(one.Hash, hash[:]) && one.RevokedAt.IsZero() {
				return text, nil
			}
		}
	}
	key.ID, key.CreatedAt = key.ID+"-"+apikey.NewID(), time.Now() // an id cannot be reused
	text, hash, err := apikey.New(key.ID)
	if err != nil {
		return "", err
	}
	key.Hash = hash[:]
	if err := keys.Add(ctx, key); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep key: %w", err)
	}
	return text, nil
}

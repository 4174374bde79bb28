package migrations_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"upcall/migrations"
)

// editions are the digests of migrations/views/*.sql, one a line: add one at the end, and
// raise the constant edition, with every change to a view.
var editions = []string{
	"174fe0be1350a4a8",
	"351dcd0c1fc47850",
	"834315e05afeec2d",
	"c21fe2a0b4475c38",
	"70489bdd7c2dadc4",
	"2597d84a45ead142",
	"1f3d98f7f2228943",
	"13285781508a4e74",
	"d73e2996ed55a049",
	"8ef6863e4958b8fe",
	"761aea6cc6b7ced0",
	"e06e997f35b22a15",
}

func TestEditionIsRaised(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("views/*.sql")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no views: %v", err)
	}
	hash := sha256.New()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		hash.Write(text)
	}
	got := hex.EncodeToString(hash.Sum(nil)[:8])
	if len(editions) != migrations.Edition || editions[len(editions)-1] != got {
		t.Errorf("the views have changed: append %q to editions, and raise the constant edition to %d", got, len(editions)+1)
	}
}

package verify

import (
	"bytes"
	"crypto"
	"crypto/md5"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestPinnedKey(t *testing.T) {
	t.Parallel()
	key, err := parsePublicKey(pinnedPEM)
	if err != nil {
		t.Fatal(err)
	}
	// n from public copies of the file.
	const n = "ab3f2411b3c1407669586de1cac1c77a083c12cdb231ac0b47d35effa7be59a4" +
		"96f91ca25be9bd72d38dac541d1dd6f4b5f14361075c025f081fba1f6605d64f"
	if got := modulus(key).Text(16); got != n || key.e != 65537 || key.size != 64 {
		t.Errorf("n = %s, e = %d, %d bytes", got, key.e, key.size)
	}
}

func modulus(k *publicKey) *big.Int { return new(big.Int).SetBytes(k.n.Nat().Bytes(k.n)) }

// TestCryptoRSARefusesThePinnedKey shows why this package has its own check. If it fails,
// something has turned off the library's minimum for the whole process.
func TestCryptoRSARefusesThePinnedKey(t *testing.T) {
	t.Parallel()
	key, err := parsePublicKey(pinnedPEM)
	if err != nil {
		t.Fatal(err)
	}
	v := loadVectors(t)["docs-2015-query"]
	signature, err := base64.StdEncoding.DecodeString(v.Authorization)
	if err != nil {
		t.Fatal(err)
	}
	digest := md5.Sum([]byte(v.Target + "\n" + v.Body))
	if err := key.check(&key.md5, digest[:], signature); err != nil {
		t.Errorf("own check: %v", err)
	}
	public := &rsa.PublicKey{N: modulus(key), E: int(key.e)}
	err = rsa.VerifyPKCS1v15(public, crypto.MD5, digest[:], signature)
	if err == nil || errors.Is(err, rsa.ErrVerification) {
		t.Errorf("crypto/rsa does not refuse a key of 512 bits as such: %v", err)
	}
}

// TestNoGODEBUG searches the module for directives that would allow short keys again, and
// weaken TLS with them.
func TestNoGODEBUG(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			t.Fatal("no go.mod above this package")
		}
		root = filepath.Dir(root)
	}
	var (
		inModule = regexp.MustCompile(`(?m)^\s*godebug\b`)
		inSource = regexp.MustCompile(`(?m)^//go:debug\b`)
		sources  = 0
	)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		// Files may come and go while other packages are tested.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && entry.Name()[0] == '.' {
			return fs.SkipDir
		}
		var forbidden *regexp.Regexp
		switch name := entry.Name(); {
		case name == "go.mod" || name == "go.work":
			forbidden = inModule
		case filepath.Ext(name) == ".go":
			forbidden = inSource
			sources++
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if forbidden.Match(text) {
			t.Errorf("%s sets GODEBUG", path)
		}
		if path == filepath.Join(root, "go.mod") && !bytes.Contains(text, []byte("\ngo 1.26")) {
			t.Error("go.mod does not say go 1.26: an older version has an older crypto/rsa")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if sources == 0 {
		t.Error("no Go file found")
	}
}

// Package vectors reads the test vectors of package verify: genuine and forged callbacks. The
// README.md in its testdata describes a vector.
package vectors

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Dir is the directory of the vectors, relative to a package of internal.
const Dir = "../verify/testdata/"

// A Vector is the content of one file.
type Vector struct {
	ID               string            `json:"id"`
	Why              string            `json:"why"`
	Expect           string            `json:"expect"`
	Target           string            `json:"target"`
	Body             string            `json:"body"`
	Authorization    string            `json:"authorization"`
	KeyURL           string            `json:"key_url"`
	PubKeyURL        string            `json:"pub_key_url"`
	SignatureVersion string            `json:"signature_version"`
	ContentType      string            `json:"content_type"`
	Headers          map[string]string `json:"headers"`
	Block            string            `json:"block"`
	KeyServer        *KeyServer        `json:"key_server"`
}

// A KeyServer serves [PublicKey]. The fields say how its answer for /key.pem differs.
type KeyServer struct {
	Status    int     `json:"status"`
	Location  string  `json:"location"`
	Body      *string `json:"body"`
	Pad       int     `json:"pad"`
	Down      bool    `json:"down"`
	Untrusted bool    `json:"untrusted"`
}

// Load returns the vectors by id.
func Load(t testing.TB) map[string]Vector {
	t.Helper()
	files, err := filepath.Glob(Dir + "vectors/*.json")
	if err != nil || len(files) < 100 {
		t.Fatalf("there are %d vectors: %v", len(files), err)
	}
	all := make(map[string]Vector, len(files))
	for _, file := range files {
		var v Vector
		decoder := json.NewDecoder(bytes.NewReader(File(t, "vectors/"+filepath.Base(file))))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if v.ID+".json" != filepath.Base(file) || v.Why == "" || v.Expect == "" {
			t.Fatalf("%s: id, why or expect is missing or wrong", file)
		}
		all[v.ID] = v
	}
	return all
}

// File returns a file of [Dir].
func File(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(Dir + name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// PublicKey returns the PEM file of the key that signed the vectors, except those from OSS
// itself.
func PublicKey(t testing.TB) []byte {
	t.Helper()
	return File(t, "testkey_512.pub.pem")
}

// Start runs the key server. It returns the URL of the key and a counter of requests.
func (s *KeyServer) Start(t testing.TB) (url string, requests *atomic.Int64) {
	t.Helper()
	key := PublicKey(t)
	requests = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != "/key.pem" {
			w.Write(key)
			return
		}
		if s.Location != "" {
			w.Header().Set("Location", s.Location)
		}
		if s.Status != 0 {
			w.WriteHeader(s.Status)
		}
		answer := key
		if s.Body != nil {
			answer = []byte(*s.Body)
		}
		w.Write(append(answer[:len(answer):len(answer)], strings.Repeat(" ", s.Pad)...))
	}))
	t.Cleanup(server.Close)
	if s.Down {
		server.Close()
	}
	return server.URL + "/key.pem", requests
}

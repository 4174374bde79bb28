// Package ram_test checks the RAM policies.
package ram_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A policy as RAM reads it (Alibaba Cloud, "Policy structure and syntax").
type policy struct {
	Version   string
	Statement []struct {
		Effect    string
		Action    list
		Resource  list
		Condition map[string]map[string]list `json:",omitempty"`
	}
}

// A list may be written as its only element.
type list []string

func (l *list) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*l = make(list, 1)
		return json.Unmarshal(data, &(*l)[0])
	}
	return json.Unmarshal(data, (*[]string)(l))
}

func policies(t *testing.T) map[string]policy {
	t.Helper()
	paths, err := filepath.Glob("*.json")
	if err != nil || len(paths) < 5 {
		t.Fatalf("%v, %v", paths, err)
	}
	all := make(map[string]policy)
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		decoder := json.NewDecoder(file)
		decoder.DisallowUnknownFields()
		var p policy
		if err := decoder.Decode(&p); err != nil || decoder.More() {
			t.Fatalf("%s: %v", path, err)
		}
		all[strings.TrimSuffix(path, ".json")] = p
	}
	return all
}

// TestResources: an action on objects names objects, one on a bucket the bucket, and nothing is allowed
// everywhere.
func TestResources(t *testing.T) {
	t.Parallel()
	objects, bucket := regexp.MustCompile(`^acs:oss:\*:\*:[a-z0-9-]+/([a-z-]+/)?\*$`), regexp.MustCompile(`^acs:oss:\*:\*:[a-z0-9-]+$`)
	for name, p := range policies(t) {
		if p.Version != "1" {
			t.Errorf("%s has version %q", name, p.Version)
		}
		for _, s := range p.Statement {
			if s.Effect != "Allow" || len(s.Action) == 0 || len(s.Resource) != 1 {
				t.Fatalf("%s: %+v", name, s)
			}
			want := objects
			if slices.Contains(s.Action, "oss:ListObjects") {
				want = bucket
			}
			if !want.MatchString(s.Resource[0]) {
				t.Errorf("%s allows %v on %s", name, s.Action, s.Resource)
			}
		}
	}
}

// needs says which action each call to OSS needs, in the policies of which users (Alibaba Cloud, "RAM policies"
// of OSS, where HeadObject is GetObject, and everything that writes parts is PutObject).
var needs = map[string]struct {
	action string
	in     []string
}{
	"PutObject":               {"oss:PutObject", []string{"issuer", "check", "export"}},
	"InitiateMultipartUpload": {"oss:PutObject", []string{"issuer", "export"}},
	"UploadPart":              {"oss:PutObject", []string{"issuer", "export"}},
	"CompleteMultipartUpload": {"oss:PutObject", []string{"issuer", "export"}},
	"AbortMultipartUpload":    {"oss:AbortMultipartUpload", []string{"issuer", "export"}},
	"HeadObject":              {"oss:GetObject", []string{"issuer", "confirm", "reconcile"}},
	"GetObject":               {"oss:GetObject", []string{"export", "reconcile"}}, // handed over months, inventories
	"ListObjectsV2":           {"oss:ListObjects", []string{"export", "reconcile"}},
	"DeleteObject":            {"oss:DeleteObject", []string{"check"}},
}

// presigned are the actions of URLs and headers that no method of the SDK is called for.
var presigned = []string{"oss:ListParts", "oss:PutObjectTagging"}

// TestCalls: each call that the programs make is allowed to those who make it, and nothing else is.
func TestCalls(t *testing.T) {
	t.Parallel()
	all := policies(t)
	allowed := make(map[string][]string)
	for name, p := range all {
		for _, s := range p.Statement {
			allowed[name] = append(allowed[name], s.Action...)
		}
	}
	made := make(map[string]bool)
	sources, err := filepath.Glob("../../internal/oss/*.go")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`sdk\.(\w+?)Request\{|\bsdk\.((?:Put|Get|Head|List|Delete|Copy|Append|Initiate|Upload|Complete|Abort)\w+)\(ctx`)
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range call.FindAllStringSubmatch(string(text), -1) {
			if !strings.HasSuffix(path, "_test.go") {
				made[found[1]+found[2]] = true
			}
		}
	}
	for name := range made {
		need, known := needs[name]
		if !known {
			t.Errorf("internal/oss calls %s; say here which action it needs, and whose", name)
		}
		for _, user := range need.in {
			if !slices.Contains(allowed[user], need.action) {
				t.Errorf("%s.json does not allow %s for %s", user, need.action, name)
			}
		}
	}
	if len(made) != len(needs) {
		t.Errorf("internal/oss makes %d kinds of calls, and %d are listed: %v", len(made), len(needs), made)
	}
	for name, actions := range allowed {
		for _, action := range actions {
			used := slices.Contains(presigned, action) && name == "issuer"
			for _, need := range needs {
				used = used || need.action == action && slices.Contains(need.in, name)
			}
			if !used {
				t.Errorf("%s.json allows %s, which nothing there needs", name, action)
			}
		}
	}
}

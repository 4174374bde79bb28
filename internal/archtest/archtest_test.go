// Package archtest checks the rules of the module: which package may import which, and that
// every package says what it is.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath   string
	Doc          string
	GoFiles      []string // not the tests
	Imports      []string
	Deps         []string // all imports, direct and indirect
	TestImports  []string
	XTestImports []string
}

// load lists every package of the module with its imports, for all build tags.
func load(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Doc,GoFiles,Imports,Deps,TestImports,XTestImports",
		"upcall/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

// standardOnly are the packages at the bottom. They import only the standard library and each
// other; verify also imports arithmetic, which the standard library has and does not export.
var standardOnly = []string{
	"upcall/internal/callbackspec",
	"upcall/internal/fault",
	"upcall/internal/ossrule",
	"upcall/internal/uploadtoken",
	"upcall/internal/verify",
}

// arithmetic is that of crypto/rsa, published by its maintainer.
const arithmetic = "filippo.io/bigmod"

// groundFloor are standardOnly and the types that all other packages use. These import only
// the standard library, uuid, and each other.
var groundFloor = slices.Concat(standardOnly, []string{
	"upcall/internal/event",
	"upcall/internal/manifest",
})

// confined names, for a library, the only packages that may import it. Tests may
// import anything.
var confined = map[string][]string{
	"github.com/gin-gonic/gin": {"upcall/internal/httpserver", "upcall/internal/intake", "upcall/internal/notify",
		"upcall/internal/issueapi", "upcall/internal/tracing"},
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2": {"upcall/internal/oss"},
	"github.com/jackc/pgx": {"upcall/internal/eventstore", "upcall/internal/feed", "upcall/internal/fold", "upcall/internal/hooks",
		"upcall/internal/rollup", "upcall/internal/reconcile", "upcall/internal/confirm", "upcall/internal/story",
		"upcall/internal/sample", "upcall/internal/embeddedpg", "upcall/internal/dbtest", "upcall/internal/pgdial",
		"upcall/internal/dbcheck", "upcall/internal/tracing", "upcall/migrations", "upcall/cmd/bench", "upcall/cmd/chaos",
		"upcall/cmd/drill"},
	"github.com/golang-migrate/migrate":          {"upcall/migrations"},
	"github.com/fergusstrange/embedded-postgres": {"upcall/internal/embeddedpg"},
	arithmetic: {"upcall/internal/verify"},
	"github.com/prometheus/client_golang": {"upcall/internal/httpserver", "upcall/internal/intake", "upcall/internal/issueapi",
		"upcall/internal/eventstore", "upcall/internal/feed", "upcall/internal/fold", "upcall/internal/hooks", "upcall/internal/rollup",
		"upcall/internal/reconcile", "upcall/internal/confirm", "upcall/internal/recorder", "upcall/internal/reply",
		"upcall/internal/spool", "upcall/internal/api", "upcall/internal/notify", "upcall/internal/stream", "upcall/internal/receiver",
		"upcall/internal/vitals", "upcall/internal/capture"},
	"github.com/exaring/otelpgx":       {"upcall/internal/tracing"},
	"go.opentelemetry.io":              {"upcall/internal/tracing"},
	"github.com/go-logr/logr":          {"upcall/internal/tracing"},
	"github.com/nats-io/nats.go":       {"upcall/internal/stream"},
	"github.com/nats-io/nats-server":   {"upcall/internal/natsserver"},
	"upcall/internal/natsserver":       {"upcall/cmd/"},
	"go.etcd.io/bbolt":                 {"upcall/internal/spool"},
	"github.com/schollz/progressbar":   {"upcall/cmd/issuer", "upcall/internal/cli"},
	"github.com/parquet-go/parquet-go": {"upcall/internal/export"},
	"github.com/cenkalti/backoff":      {"upcall/internal/uploader"},
	"code.dny.dev/ssrf":                {"upcall/internal/hooks"},
	"github.com/standard-webhooks":     {"upcall/internal/webhook/listen", "upcall/cmd/chaos", "upcall/examples"},
	"go.yaml.in/yaml":                  {"upcall/internal/policy", "upcall/internal/hooks"},
	"github.com/Shopify/toxiproxy":     {"upcall/cmd/chaos"},
	"github.com/alecthomas/kong":       {"upcall/cmd/", "upcall/internal/cli"},
	"upcall/internal/embeddedpg":       {"upcall/cmd/", "upcall/internal/dbtest"},
	"upcall/internal/cli":              {"upcall/cmd/"},
	"upcall/internal/dbtest":           {},
	"upcall/internal/testing":          {"upcall/cmd/testdeps", "upcall/internal/dbtest"}, // toolchain, pgbouncer
	"upcall/internal/ossemu":           {"upcall/cmd/ossemu", "upcall/cmd/demo", "upcall/internal/loadgen"},
	"upcall/cmd":                       {},
}

// apart says what packages must not import, even indirectly, because they are used without a
// database, a spool or credentials.
var apart = map[string][]string{
	"upcall/internal/admission": {"github.com/gin-gonic/gin", "github.com/jackc/pgx", "upcall/internal/eventstore"},
	"upcall/internal/intake":    {"github.com/jackc/pgx", "upcall/internal/eventstore", "upcall/internal/spool", "upcall/internal/stream"},
	"upcall/internal/notify":    {"github.com/jackc/pgx", "upcall/internal/eventstore", "upcall/internal/spool", "upcall/internal/stream"},
	"upcall/internal/doctor":    {"github.com/jackc/pgx", "upcall/internal/eventstore", "upcall/internal/spool", "upcall/internal/stream"},
	"upcall/internal/spool":     {"github.com/jackc/pgx", "upcall/internal/eventstore"},
	"upcall/internal/stream":    {"github.com/jackc/pgx", "upcall/internal/eventstore", "github.com/nats-io/nats-server"},
	"upcall/internal/recorder":  {"github.com/jackc/pgx", "upcall/internal/eventstore", "upcall/internal/spool", "upcall/internal/stream"},
	"upcall/internal/reply":     {"github.com/jackc/pgx", "upcall/internal/eventstore", "upcall/internal/hooks"},
	"upcall/internal/uploader":  {"github.com/aliyun/alibabacloud-oss-go-sdk-v2", "github.com/jackc/pgx", "upcall/internal/oss"},
}

// scaffolding is the directory of the packages that only tests and they themselves import.
const scaffolding = "upcall/internal/testing"

// fakes says what each of them may import besides the standard library: what it fakes.
var fakes = map[string][]string{
	scaffolding + "/browser": {"github.com/chromedp/chromedp"},
	scaffolding + "/clitest": {"upcall/internal/cli", "github.com/alecthomas/kong"},
	scaffolding + "/fallbacktest": {"upcall/internal/callbackspec", "upcall/internal/event", "upcall/internal/kept",
		"upcall/internal/recorder", "github.com/google/uuid", "github.com/google/go-cmp"},
	scaffolding + "/openapitest": {"github.com/getkin/kin-openapi", "github.com/google/go-cmp", "upcall/internal/event"},
	scaffolding + "/collector":   {"go.opentelemetry.io/proto/otlp", "google.golang.org/protobuf"},
	scaffolding + "/metrictest":  {"github.com/prometheus/client_golang"},
	scaffolding + "/natstest":    {"upcall/internal/natsserver"},
	scaffolding + "/ossclient":   {"github.com/aliyun/alibabacloud-oss-go-sdk-v2"},
	scaffolding + "/ossfake":     {"upcall/internal/loadgen", "upcall/internal/ossemu"},
}

// layers are the packages from the bottom up. A package imports only packages of lower
// layers, so that dependencies go one way. Programs are above all of them.
var layers = [][]string{
	{"internal/fault", "internal/filelock", "internal/pgdial", "internal/buildinfo"},
	{"internal/ossrule", "internal/strictjson"},
	{"internal/callbackspec", "internal/verify", "internal/uploadtoken", "internal/apikey", "internal/embeddedpg",
		"internal/httpserver", "internal/vitals", "internal/tracing", "internal/issueapi/page", "migrations", "internal/natsserver"},
	{"internal/event", "internal/manifest"},
	{"internal/oss", "internal/policy", "internal/snippet", "internal/webhook", "internal/eventstore", "internal/ossemu",
		"internal/admission", "internal/dbtest", "internal/kept"},
	{"internal/issue", "internal/spool", "internal/stream", "internal/loadgen", "internal/feed", "internal/doctor"},
	{"internal/recorder", "internal/hooks", "internal/reply", "internal/rollup", "internal/fold", "internal/capture"},
	{"internal/story"},
	{"internal/intake", "internal/notify", "internal/dbcheck", "internal/issueapi", "internal/uploader", "internal/api", "internal/export",
		"internal/reconcile", "internal/webhook/listen", "internal/sample", "internal/confirm"},
	{"internal/console"},
	{"internal/receiver", "internal/issuer", "internal/cli", "internal/check"},
}

func TestLayers(t *testing.T) {
	t.Parallel()
	layer := make(map[string]int)
	for i, paths := range layers {
		for _, path := range paths {
			layer["upcall/"+path] = i + 1
		}
	}
	for _, p := range load(t) {
		if len(p.GoFiles) == 0 || under(p.ImportPath, "upcall/cmd") || under(p.ImportPath, scaffolding) ||
			under(p.ImportPath, "upcall/examples") {
			continue
		}
		if layer[p.ImportPath] == 0 {
			t.Errorf("%s has no layer", p.ImportPath)
		}
		for _, imported := range p.Imports {
			if layer[imported] >= layer[p.ImportPath] {
				t.Errorf("%s imports %s, which is not in a lower layer", p.ImportPath, imported)
			}
		}
	}
}

func TestImports(t *testing.T) {
	t.Parallel()
	for _, p := range load(t) {
		if under(p.ImportPath, scaffolding) {
			continue // see TestScaffolding
		}
		for _, imported := range p.Imports {
			if slices.Contains(standardOnly, p.ImportPath) && !standard(imported) && imported != arithmetic &&
				!slices.Contains(standardOnly, imported) {
				t.Errorf("%s imports %s; it may import only the standard library and standardOnly", p.ImportPath, imported)
			}
			if slices.Contains(groundFloor, p.ImportPath) && !standard(imported) && imported != arithmetic &&
				imported != "github.com/google/uuid" && !slices.Contains(groundFloor, imported) {
				t.Errorf("%s imports %s; it may import only the standard library, uuid and groundFloor", p.ImportPath, imported)
			}
			for library, allowed := range confined {
				if under(imported, library) && !slices.ContainsFunc(allowed, func(a string) bool { return under(p.ImportPath, a) }) {
					t.Errorf("%s imports %s, which only %v may import", p.ImportPath, imported, allowed)
				}
			}
		}
	}
}

// TestExamples holds that examples are what someone outside of this module could write.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, p := range load(t) {
		for _, imported := range p.Imports {
			if under(p.ImportPath, "upcall/examples") && under(imported, "upcall") {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func TestScaffolding(t *testing.T) {
	t.Parallel()
	for _, p := range load(t) {
		if !under(p.ImportPath, scaffolding) {
			continue
		}
		allowed := append(fakes[p.ImportPath], scaffolding)
		for _, imported := range p.Imports {
			if !standard(imported) && !slices.ContainsFunc(allowed, func(a string) bool { return under(imported, a) }) {
				t.Errorf("%s imports %s; it may import only the standard library and %v", p.ImportPath, imported, allowed)
			}
		}
	}
}

func TestApart(t *testing.T) {
	t.Parallel()
	pkgs := load(t)
	for path, libraries := range apart {
		i := slices.IndexFunc(pkgs, func(p pkg) bool { return p.ImportPath == path })
		if i < 0 {
			t.Errorf("there is no package %s", path)
			continue
		}
		for _, library := range libraries {
			if slices.ContainsFunc(pkgs[i].Deps, func(d string) bool { return under(d, library) }) {
				t.Errorf("%s reaches %s", path, library)
			}
		}
	}
}

// TestConfinedExists fails if a rule is about a library that no package imports.
func TestConfinedExists(t *testing.T) {
	t.Parallel()
	pkgs := load(t)
	for library := range confined {
		if library == "upcall/cmd" {
			continue // the rule is that no package imports a program
		}
		if !slices.ContainsFunc(pkgs, func(p pkg) bool {
			return slices.ContainsFunc(slices.Concat(p.Imports, p.TestImports, p.XTestImports),
				func(i string) bool { return under(i, library) })
		}) {
			t.Errorf("there is a rule about %s, but no package imports it", library)
		}
	}
	for _, path := range groundFloor {
		if !slices.ContainsFunc(pkgs, func(p pkg) bool { return p.ImportPath == path }) {
			t.Errorf("there is no package %s", path)
		}
	}
}

// TestPackageComments fails for a package that does not say what it is.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	for _, p := range load(t) {
		name := p.ImportPath[strings.LastIndexByte(p.ImportPath, '/')+1:]
		program := under(p.ImportPath, "upcall/cmd") || under(p.ImportPath, "upcall/examples")
		switch {
		case len(p.GoFiles) == 0: // tests only: go list sees no comment
		case program && !strings.HasPrefix(strings.ToLower(p.Doc), name+" "):
			t.Errorf("%[1]s: the command's comment is %[3]q; start it with %[2]q", p.ImportPath, name, p.Doc)
		case !program && !strings.HasPrefix(p.Doc, "Package "+name+" "):
			t.Errorf("%[1]s: the package comment is %[3]q; start it with %[2]q", p.ImportPath, "Package "+name, p.Doc)
		}
	}
}

// TestLoggedDurations holds that durations are logged as milliseconds: slog's JSON has nanoseconds, its
// text another unit for each size, and nobody can compare them.
func TestLoggedDurations(t *testing.T) {
	t.Parallel()
	for _, p := range load(t) {
		for _, name := range p.GoFiles {
			path := filepath.Join("../..", strings.TrimPrefix(p.ImportPath, "upcall"), name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "slog"+".Duration(") {
				t.Errorf("%s logs a duration; log milliseconds as a number, under a name that ends in _ms", path)
			}
		}
	}
}

func under(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

// standard reports whether an import path is the standard library's: its first element
// has no dot, and it is not of this module.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && first != "upcall"
}

// TestMakeTargets fails if the Makefile's help lists a target that make cannot build, or that
// runs a missing program.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	help, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "--no-print-directory", "help").Output()
	if err != nil {
		t.Fatalf("make help: %v", err)
	}
	targets := 0
	for line := range strings.Lines(string(help)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "make" {
			continue
		}
		targets++
		plan, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "--no-print-directory", "--dry-run",
			fields[1]).CombinedOutput()
		if err != nil {
			t.Errorf("make %s: %v: %s", fields[1], err, plan)
		}
		for _, word := range strings.Fields(string(plan)) {
			if path, ok := strings.CutPrefix(word, "./cmd/"); ok &&
				exec.CommandContext(t.Context(), "go", "list", "upcall/cmd/"+path).Run() != nil {
				t.Errorf("make %s runs ./cmd/%s, which does not exist", fields[1], path)
			}
		}
	}
	if targets < 5 {
		t.Errorf("make help lists %d targets: %s", targets, help)
	}
}

package receiver

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/hooks"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

// TestMetricsOfMonitoring: each metric that an alert or a panel names is one of a receiver's.
func TestMetricsOfMonitoring(t *testing.T) {
	t.Parallel()
	app, emulator := newAskedApp(t), ossfake.Start(t)
	receiver := start(t, Config{DatabaseURL: dbtest.URL(t), TrustKeyURLs: []string{emulator + ossemu.PublicKeyPath}, SpoolDir: t.TempDir(),
		Reply: &ReplyConfig{URL: app.URL + "/reply", Secret: app.secret, Timeout: 3 * time.Second},
		Hooks: HooksConfig{Rules: hooks.Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			Declared: []hooks.Declared{{Settings: hooks.Settings{Name: "app", URL: app.URL + "/hook"}, Secret: app.secret}}}})
	put(t, emulator, receiver.Public+"/oss/callback")
	wait.Until(t, "the hook is delivered", func() bool { return len(app.at("/hook")) == 1 })
	servetest.Get(t, receiver.Public+"/nothing") // which is refused
	var there []string
	wait.Until(t, "the endpoint is counted", func() bool {
		_, text := servetest.Get(t, receiver.Admin+"/metrics")
		there = nil
		for _, found := range regexp.MustCompile(`(?m)^# TYPE (\w+) `).FindAllStringSubmatch(text, -1) {
			there = append(there, found[1])
		}
		return slices.Contains(there, "upcall_hook_attempts_total") && slices.Contains(there, "upcall_hook_state") &&
			slices.Contains(there, "upcall_hook_lag_seconds")
	})
	described := make(chan *prometheus.Desc, 1)
	(&eventstore.SlotLag{}).Describe(described) // the server has no slot
	there = append(there, regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch((<-described).String())[1])

	there = append(there, optional(t)...)

	files, err := filepath.Glob("../../deploy/*/*")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, path := range files {
		if extension := filepath.Ext(path); extension != ".yaml" && extension != ".json" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bupcall_[a-z_]+\b`).FindAllString(string(text), -1) {
			if name == "upcall_analyst" {
				continue
			}
			named++
			family := strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
			if !slices.Contains(there, family) {
				t.Errorf("%s names %s, which no receiver has", path, name)
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d metrics were found in %q", named, files)
	}
}

// optional returns the metrics of what the receiver of this test has turned off, or what has counted nothing there.
func optional(t *testing.T) (names []string) {
	t.Helper()
	for _, name := range []string{"confirm", "notify", "reconcile", "stream"} {
		text, err := os.ReadFile("../" + name + "/metrics.go")
		if err != nil {
			t.Fatal(err)
		}
		all := regexp.MustCompile(`"(upcall_[a-z_]+)"`).FindAllSubmatch(text, -1)
		if len(all) == 0 {
			t.Fatalf("package %s has no metrics; nothing would be compared", name)
		}
		for _, found := range all {
			names = append(names, string(found[1]))
		}
	}
	return names
}

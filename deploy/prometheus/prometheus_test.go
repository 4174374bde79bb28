// Package prometheus_test checks the alerts.
package prometheus_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"upcall/internal/testing/toolchain"
)

type rule struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	read(t, "alerts.yaml", &file)
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 20 {
		t.Fatalf("only %d alerts were found", len(all))
	}
	return all
}

// TestAlerts: Prometheus accepts the alerts, and each fires and does not fire as its cases say.
func TestAlerts(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestAlertCases: each alert has a case in which it fires, and one in which it does not.
func TestAlertCases(t *testing.T) {
	t.Parallel()
	var file struct {
		Tests []struct {
			Checks []struct {
				Expr    string
				Samples []any `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	read(t, "alerts_test.yaml", &file)
	fires, quiet := make(map[string]int), make(map[string]int)
	for _, test := range file.Tests {
		for _, check := range test.Checks {
			if len(check.Samples) > 0 {
				fires[check.Expr]++
			} else {
				quiet[check.Expr]++
			}
		}
	}
	for _, r := range rules(t) {
		expr := `ALERTS{alertname="` + r.Alert + `", alertstate="firing"}`
		if fires[expr] == 0 || quiet[expr] == 0 {
			t.Errorf("%s fires in %d cases, and does not in %d", r.Alert, fires[expr], quiet[expr])
		}
	}
}

// TestAlertTexts: each alert says what it is, what to do, and which part of a page is about it; the
// page about alerts lists it.
func TestAlertTexts(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		if !strings.Contains(string(list), "`"+r.Alert+"`") {
			t.Errorf("docs/monitoring.md does not list %s", r.Alert)
		}
		if !strings.HasSuffix(r.Annotations["summary"], ".") || len(r.Annotations["description"]) < 60 ||
			(r.Labels["severity"] != "critical" && r.Labels["severity"] != "warning") {
			t.Errorf("%s: %q, %q", r.Alert, r.Labels, r.Annotations)
		}
		path, anchor, _ := strings.Cut(r.Annotations["page"], "#")
		text, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
		found := anchor == ""
		for line := range strings.Lines(string(text)) {
			heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
			if strings.HasPrefix(line, "#") && strings.ReplaceAll(strings.ReplaceAll(heading, "'", ""), " ", "-") == anchor {
				found = true
			}
		}
		if !found {
			t.Errorf("%s: %s has no part %s", r.Alert, path, anchor)
		}
	}
}

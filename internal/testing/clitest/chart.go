package clitest

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// everyPod has these settings, too, which are not in the help of serve, and OpenTelemetry's.
var everyPod = []string{"GOGC", "GOMEMLIMIT", "OSS_ACCESS_KEY_ID"}

// CheckChart holds that the Helm chart takes as settings of a component what its program knows: all variables that the help
// of serve names, but for those that the chart itself sets or has no use for.
func (p Program) CheckChart(t testing.TB, component string, but ...string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/helm/upcall/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type schema struct{ Properties map[string]json.RawMessage }
	var object schema
	for _, name := range []string{"", component, "settings"} {
		if name != "" {
			text = object.Properties[name]
		}
		object = schema{}
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	variables := regexp.MustCompile(`\$((?:UPCALL|OSS)_[A-Z0-9_]+)`).FindAllStringSubmatch(p.Output(t, Env{}, "serve", "--help"), -1)
	if len(variables) == 0 {
		t.Fatal("the help of serve names no variable")
	}
	shown := make(map[string]bool)
	for _, found := range variables {
		shown[found[1]] = true
		if _, ok := object.Properties[found[1]]; !ok && !slices.Contains(but, found[1]) {
			t.Errorf("%s has the variable %s: add it to the settings in deploy/helm/upcall/values.schema.json, or except it in this test",
				component, found[1])
		}
	}
	for name := range object.Properties {
		if !shown[name] && !slices.Contains(everyPod, name) && !strings.HasPrefix(name, "OTEL_") || slices.Contains(but, name) {
			t.Errorf("the chart takes %s, which is no setting of %s, or which it sets itself", name, component)
		}
	}
}

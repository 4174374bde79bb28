// Package grafana_test runs what the dashboard asks.
package grafana_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v4"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/sample"
	"upcall/internal/testing/toolchain"
	"upcall/migrations"
)

const page = "dashboards/upcall.json"

type dashboard struct {
	Panels []struct {
		ID                       int
		Type, Title, Description string
		Datasource               datasource
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []target
	}
	Templating struct {
		List []struct {
			Name, Query string
			Datasource  datasource
		}
	}
}

type datasource struct{ Type, UID string }

type target struct {
	Datasource           datasource
	Format, RawSQL, Expr string
}

// read returns the dashboard.
func read(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) < 15 {
		t.Fatalf("only %d panels were found", len(d.Panels))
	}
	return d
}

var (
	from = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	to   = time.Date(2026, 10, 31, 16, 0, 0, 0, time.UTC)
)

// macro is one of Grafana's for PostgreSQL (its documentation, "PostgreSQL query editor", 2025).
var macro = regexp.MustCompile(`\$__(\w+)(?:\(([^()]*)\))?`)

// expand does with a query what Grafana does, with all values of the variables chosen.
func expand(t *testing.T, query string, chosen map[string][]string) string {
	t.Helper()
	for name, values := range chosen {
		quoted := make([]string, len(values))
		for i, value := range values {
			quoted[i] = "'" + strings.ReplaceAll(value, "'", "''") + "'"
		}
		query = strings.ReplaceAll(query, "${"+name+":sqlstring}", strings.Join(quoted, ","))
	}
	query = strings.ReplaceAll(query, "$__interval", "1h")
	query = macro.ReplaceAllStringFunc(query, func(whole string) string {
		m := macro.FindStringSubmatch(whole)
		args := strings.Split(m[2], ",")
		switch m[1] {
		case "timeFilter":
			return fmt.Sprintf("%s BETWEEN '%s' AND '%s'", m[2], from.Format(time.RFC3339Nano), to.Format(time.RFC3339Nano))
		case "timeGroup":
			step, err := time.ParseDuration(strings.Trim(args[len(args)-1], " '"))
			if err != nil {
				t.Fatalf("%s: %v", whole, err)
			}
			return fmt.Sprintf("floor(extract(epoch from %s)/%[2]v)*%[2]v", args[0], step.Seconds())
		}
		t.Fatalf("this test does not know %s", whole)
		return ""
	})
	if strings.Contains(query, "$") {
		t.Fatalf("something is left to expand in %s", query)
	}
	return query
}

// TestQueries runs each query of a panel as an analyst, on a month of uploads.
func TestQueries(t *testing.T) {
	t.Parallel()
	pool := dbtest.Pool(t, eventstore.Open)
	feed := dbtest.Beside(t, pool, eventstore.OpenFeed)
	err := sample.Fill(t.Context(), sample.Config{Pool: pool, Feed: feed, Events: 3000, Seed: 1, Until: to, PerTransaction: 500})
	if err == nil {
		err = sample.Count(t.Context(), feed, slog.New(slog.NewTextHandler(t.Output(), nil)), func(sample.Progress) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "SET ROLE "+migrations.AnalystRole+"; SET timezone = 'UTC'"); err != nil {
		t.Fatal(err)
	}
	d, ran, chosen := read(t), 0, make(map[string][]string)
	run := func(title, query string, series bool) {
		ran++
		rows, err := conn.Query(t.Context(), expand(t, query, chosen), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Errorf("%s: %v", title, err)
			return
		}
		defer rows.Close()
		columns := rows.FieldDescriptions()
		if series && (len(columns) < 2 || columns[0].Name != "time") {
			t.Errorf("%s: the first of %d columns is %s, not the time", title, len(columns), columns[0].Name)
		}
		n := 0
		for last := ""; rows.Next(); n++ {
			values, err := rows.Values()
			if err != nil {
				t.Errorf("%s: %v", title, err)
			}
			if now := fmt.Sprint(values[0]); series && len(now) == len(last) && now < last {
				t.Errorf("%s: %s comes after %s", title, now, last)
			} else {
				last = now
			}
		}
		if err := rows.Err(); err != nil {
			t.Errorf("%s: %v", title, err)
		}
		if n == 0 && title != "Endpoints of hooks" { // the sample has none
			t.Errorf("%s: no rows", title)
		}
	}
	for _, variable := range d.Templating.List {
		rows, _ := conn.Query(t.Context(), expand(t, variable.Query, nil))
		values, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(values) == 0 {
			t.Fatalf("the variable %s has the values %q, %v", variable.Name, values, err)
		}
		chosen[variable.Name] = append(values, "it's")
	}
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			if target.RawSQL != "" {
				run(panel.Title, target.RawSQL, target.Format == "time_series")
			}
		}
	}
	if ran < 9 {
		t.Errorf("only %d queries were found", ran)
	}
}

// TestPromQL has promtool parse each query of a panel.
func TestPromQL(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "promtool")
	var rules strings.Builder
	rules.WriteString("groups: [{name: panels, rules: [\n")
	n := 0
	for _, panel := range read(t).Panels {
		for _, target := range panel.Targets {
			if target.Expr != "" {
				expr := strings.NewReplacer("$__rate_interval", "1m", "$__interval", "15s").Replace(target.Expr)
				fmt.Fprintf(&rules, "{record: 'panel:%d:%d', expr: %s},\n", panel.ID, n, strconv.Quote(expr))
				n++
			}
		}
	}
	rules.WriteString("]}]\n")
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", path).CombinedOutput(); err != nil || n < 10 {
		t.Errorf("%d queries: %v\n%s", n, err, out)
	}
	out, err := exec.CommandContext(t.Context(), "promtool", "check", "config", "../prometheus/prometheus.yml").CombinedOutput()
	if err != nil {
		t.Errorf("prometheus.yml: %v\n%s", err, out)
	}
}

// TestDashboard: panels have names, texts and data sources that are provisioned, do not overlap,
// and each query is for its data source.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var provisioned struct {
		Datasources []struct{ UID, Type string }
	}
	text, err := os.ReadFile("provisioning/datasources/upcall.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &provisioned)
	}
	if err != nil || len(provisioned.Datasources) != 2 {
		t.Fatalf("%d data sources, %v", len(provisioned.Datasources), err)
	}
	types := make(map[string]string)
	for _, source := range provisioned.Datasources {
		types[source.UID] = source.Type
	}
	var ids []int
	taken := make(map[[2]int]string)
	for _, panel := range read(t).Panels {
		if slices.Contains(ids, panel.ID) || panel.Title == "" ||
			(panel.Type != "row" && (panel.Description == "" || len(panel.Targets) == 0)) {
			t.Errorf("panel %d %q lacks something, or comes twice", panel.ID, panel.Title)
		}
		ids = append(ids, panel.ID)
		for _, target := range panel.Targets {
			kind := types[target.Datasource.UID]
			if kind == "" || kind != target.Datasource.Type || target.Datasource != panel.Datasource ||
				(kind == "prometheus") != (target.Expr != "") || (kind != "prometheus") != (target.RawSQL != "") {
				t.Errorf("%s: %+v", panel.Title, target)
			}
		}
		at := panel.GridPos
		if at.X < 0 || at.W < 1 || at.H < 1 || at.X+at.W > 24 {
			t.Errorf("%s is at %+v", panel.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", panel.Title, other)
				}
				taken[[2]int{x, y}] = panel.Title
			}
		}
	}
}

// TestCompose: images are pinned, and ports are on loopback.
func TestCompose(t *testing.T) {
	t.Parallel()
	var file struct {
		Services map[string]struct {
			Image   string
			Ports   []string
			Volumes []string
		}
	}
	text, err := os.ReadFile("docker-compose.yml")
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil || len(file.Services) != 2 {
		t.Fatalf("%d services, %v", len(file.Services), err)
	}
	for name, service := range file.Services {
		if !regexp.MustCompile(`^[a-z/]+:v?\d+\.\d+\.\d+$`).MatchString(service.Image) || len(service.Ports) != 1 ||
			!strings.HasPrefix(service.Ports[0], "127.0.0.1:") {
			t.Errorf("%s: %+v", name, service)
		}
		for _, volume := range service.Volumes {
			if source, _, _ := strings.Cut(volume, ":"); strings.HasPrefix(source, ".") {
				if _, err := os.Stat(source); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

package dbcheck

import (
	"slices"
	"strings"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/testing/pgbouncer"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// names are what is found at a URL by a clock.
func names(t *testing.T, url string, now func() time.Time) (found []string) {
	t.Helper()
	findings, err := Check(t.Context(), dbtest.Open(t, url, eventstore.Open), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		found = append(found, f.Name)
		if f.What == "" || f.Fix == "" || strings.Contains(f.String(), "\n") {
			t.Errorf("finding %q", f)
		}
	}
	return found
}

// TestCheck breaks one thing at a time.
func TestCheck(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	url := server.URL()
	role := dbtest.Role(t, url, "GRANT USAGE ON SCHEMA upcall TO ROLE")
	if err := eventstore.EnsurePartitions(t.Context(), dbtest.Open(t, url, eventstore.Open), time.Now()); err != nil {
		t.Fatal(err)
	}
	const alone = "synchronous_standby_names"
	ahead := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	for _, tt := range []struct {
		name, change, undo, url string
		now                     func() time.Time
		want                    []string
	}{
		{name: "as it is", want: []string{alone}},
		{name: "fsync", change: "ALTER SYSTEM SET fsync = off", undo: "ALTER SYSTEM RESET fsync", want: []string{"fsync", alone}},
		{name: "full_page_writes", change: "ALTER SYSTEM SET full_page_writes = off", undo: "ALTER SYSTEM RESET full_page_writes",
			want: []string{"full_page_writes", alone}},
		{name: "managed", change: "CREATE ROLE rds_superuser", undo: "DROP ROLE rds_superuser", want: []string{"managed"}},
		{name: "no standby", change: "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
			undo: "ALTER SYSTEM RESET synchronous_standby_names", want: []string{"standby_missing"}},
		{name: "commit", change: "ALTER SYSTEM SET synchronous_commit = local", undo: "ALTER SYSTEM RESET synchronous_commit",
			want: []string{alone, "synchronous_commit"}},
		{name: "clock behind", now: ahead(-3 * time.Minute), want: []string{alone, "clock"}},
		{name: "clock ahead", now: ahead(3 * time.Minute), want: []string{alone, "clock"}},
		{name: "months", now: ahead(100 * 24 * time.Hour), want: []string{alone, "clock", "months"}},
		{name: "rights", url: role, want: []string{alone, "rights"}},
		{name: "schema", change: "UPDATE upcall.schema_migrations SET version = version - 1",
			undo: "UPDATE upcall.schema_migrations SET version = version + 1", want: []string{alone, "schema"}},
		{name: "as it was", want: []string{alone}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, statement := range []string{tt.change, tt.undo} {
				if statement == "" {
					continue
				}
				execute := func(statement string) {
					dbtest.Execute(t, url, statement)
					dbtest.Execute(t, url, "SELECT pg_reload_conf()")
				}
				if statement == tt.undo {
					defer execute(statement)
				} else {
					execute(statement)
				}
			}
			if tt.url == "" {
				tt.url = url
			}
			if tt.now == nil {
				tt.now = time.Now
			}
			var found []string
			wait.Until(t, "the finding is "+strings.Join(tt.want, ", "), func() bool { // when the settings are read
				found = names(t, tt.url, tt.now)
				return slices.Equal(found, tt.want)
			})
		})
	}
}

func TestStandby(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "standby")
	primary := dbtest.NewServer(t)
	if err := eventstore.EnsurePartitions(t.Context(), dbtest.Open(t, primary.URL(), eventstore.Open), time.Now()); err != nil {
		t.Fatal(err)
	}
	standby := dbtest.NewStandby(t, primary.URL())
	if err := primary.Synchronous(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := names(t, primary.URL(), time.Now); len(found) > 0 {
		t.Errorf("a synchronous pair: %v", found)
	}
	if found := names(t, standby.URL(), time.Now); !slices.Contains(found, "standby") {
		t.Errorf("a standby: %v", found)
	}
}

func TestPooler(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "pgbouncer")
	direct := dbtest.URL(t)
	for _, mode := range []string{"session", "transaction"} {
		findings, err := Check(t.Context(), dbtest.Open(t, pgbouncer.Start(t, direct, mode), eventstore.Open), time.Now)
		if err != nil || !slices.ContainsFunc(findings, func(f Finding) bool {
			return f.Name == "pooler" && strings.Contains(f.What, mode)
		}) {
			t.Errorf("%s: %v, %v", mode, findings, err)
		}
	}
}

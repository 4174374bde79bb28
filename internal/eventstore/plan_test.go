package eventstore

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/dbtest"
)

// A planNode is a node of EXPLAIN's JSON.
type planNode struct {
	Type      string `json:"Node Type"`
	Index     string `json:"Index Name"`
	IndexCond string `json:"Index Cond"`
	Function  string `json:"Function Name"`
	Filtered  int    `json:"Rows Removed by Filter"`
	Joined    int    `json:"Rows Removed by Join Filter"`
	Rechecked int    `json:"Rows Removed by Index Recheck"`
	Hit       int    `json:"Shared Hit Blocks"`
	Read      int    `json:"Shared Read Blocks"`
	Plans     []planNode
}

// check reports what reads more of a table than a batch needs.
func (n planNode) check(t *testing.T, name string, jit bool) {
	t.Helper()
	var walk func(planNode)
	walk = func(n planNode) {
		table := n.Function == "" && strings.Contains(n.Type, "Scan") && n.Index != ""
		switch {
		case n.Type == "Seq Scan", table && n.IndexCond == "":
			t.Errorf("%s: %s %s reads a table from end to end", name, n.Type, n.Index)
		case n.Joined > planBatch, n.Rechecked > planBatch, n.Filtered > planBatch:
			t.Errorf("%s: %s %s read %d rows in vain", name, n.Type, n.Index, n.Joined+n.Rechecked+n.Filtered)
		}
		for _, child := range n.Plans {
			walk(child)
		}
	}
	walk(n)
	// Each row is written to two tables and four indexes, and looked for in three.
	if blocks := n.Hit + n.Read; blocks > 50*planBatch {
		t.Errorf("%s: %d blocks for %d rows", name, blocks, planBatch)
	}
	if jit {
		t.Errorf("%s: it is compiled", name)
	}
}

// planBatch is how many rows the statements are given.
const planBatch = 100

// explain runs a statement, takes back what it did, and returns its plan.
func explain(t *testing.T, conn *pgx.Conn, call string) (plan planNode, jit bool) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	var text []byte
	if err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE "+call, pgx.QueryExecModeSimpleProtocol).
		Scan(&text); err != nil {
		t.Fatal(err)
	}
	var plans []struct {
		Plan planNode
		JIT  json.RawMessage
	}
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) != 1 || plans[0].Plan.Type == "" {
		t.Fatalf("plan %s: %v", text, err)
	}
	return plans[0].Plan, plans[0].JIT != nil
}

// planCall returns a call of a statement with values for its fields; those not given are
// the same in each row.
func planCall[T any](s statement, fields []field[T], given map[string][]uuid.UUID) string {
	var values []string
	for _, f := range fields {
		array := typeOf(f.pointer(new(T))).array
		constant := map[string]string{
			"timestamptz[]": "'" + at.Format("2006-01-02 15:04:05Z07:00") + "'", "text[]": "'1'", "bigint[]": "1", "integer[]": "1",
			"jsonb[]": "'{}'", "uuid[]": "NULL", "boolean[]": "false",
		}[array]
		if f.name == "clock" {
			constant = "now()"
		}
		if f.name == "client_ip" || f.name == "source_addr" {
			constant = "'192.0.2.1'"
		}
		ids := given[f.name]
		if ids == nil {
			values = append(values, fmt.Sprintf("array_fill(%s::%s, ARRAY[%d])", constant, strings.TrimSuffix(array, "[]"), planBatch))
			continue
		}
		var list []string
		for _, id := range ids {
			list = append(list, "'"+id.String()+"'")
		}
		values = append(values, "ARRAY["+strings.Join(list, ",")+"]::"+array)
	}
	return s.name + "(" + strings.Join(values, ", ") + ")"
}

func planIDs(version7 bool) []uuid.UUID {
	ids := make([]uuid.UUID, planBatch)
	for i := range ids {
		ids[i] = uuid.New()
		if version7 {
			ids[i] = uuid.Must(uuid.NewV7())
		}
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	return ids
}

const (
	fillTokens = `INSERT INTO upcall.callback_ids (upload_id, id, received_at)
		SELECT gen_random_uuid(), gen_random_uuid(), now() FROM generate_series(1, 100000)`
	fillTokenless = "INSERT INTO upcall.callback_ids (id, received_at) SELECT gen_random_uuid(), now() FROM generate_series(1, 100000)"
	// Of the refusals, many are of one upload, as if its URL had leaked.
	fillOthers = `WITH revoked AS (
			INSERT INTO upcall.revoked_uploads SELECT gen_random_uuid(), now() FROM generate_series(1, 10000)
		), issued AS (
			INSERT INTO upcall.issued_uploads (upload_id, issued_at, expires_at, bucket, object_key)
			SELECT gen_random_uuid(), now(), now(), 'demo', i::text FROM generate_series(1, 10000) AS i
		)
		INSERT INTO upcall.refused_callbacks (digest, reason, refused_at, upload_id)
		SELECT gen_random_uuid(), 'token_revoked', now(), CASE WHEN i < 2000 THEN '` + leakedUpload + `' ELSE gen_random_uuid() END
		FROM generate_series(1, 10000) AS i`
	few     = "few" // ten of each
	plan    = "plan"
	analyze = "ANALYZE upcall.callback_ids, upcall.revoked_uploads, upcall.refused_callbacks, upcall.issued_uploads, upcall.upload_events"

	leakedUpload = "018f0000-0000-7000-8000-000000000001"
)

// TestPlan: PostgreSQL plans the statements on the path of a callback once for each
// connection, whatever the tables hold then and whatever it believes of them, and keeps the
// plans when there are millions of rows. None may read more than its batch needs.
func TestPlan(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]string{
		"never analyzed":          {fillTokens, fillTokenless, fillOthers},
		"tokens, then none":       {fillTokens, fillOthers, analyze, fillTokenless},
		"no tokens, then some":    {fillTokenless, analyze, fillTokens, fillOthers},
		"few rows, then many":     {few, analyze, fillTokenless, fillTokens, fillOthers},
		"planned on no rows":      {plan, fillTokens, fillTokenless, fillOthers},
		"planned on few rows":     {few, analyze, plan, fillTokenless, fillTokens, fillOthers},
		"planned after tokens":    {fillTokens, analyze, plan, fillTokenless, fillOthers},
		"planned after no tokens": {fillTokenless, analyze, plan, fillTokens, fillOthers},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.Pool(t, Open)
			if err := EnsurePartitions(t.Context(), pool, at); err != nil {
				t.Fatal(err)
			}
			for _, table := range strings.Split(strings.TrimPrefix(analyze, "ANALYZE "), ", ") {
				if table != "upcall.upload_events" { // PostgreSQL analyzes when these steps say so
					execute(t, pool, "ALTER TABLE "+table+" SET (autovacuum_enabled = false)")
				}
			}
			conn, err := dbtest.Direct(t, pool, OpenRecorder).Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			for _, s := range []statement{eventKind.insert, issuedKind.insert, {name: "upcall_find", sql: findEvent},
				{name: "upcall_revoke", sql: revokeUpload}} {
				if _, err := conn.Conn().Prepare(t.Context(), s.name, s.sql); err != nil {
					t.Fatal(err)
				}
			}
			for _, step := range steps {
				switch step {
				case few:
					for _, fill := range []string{fillTokens, fillTokenless, fillOthers} {
						execute(t, pool, strings.NewReplacer("(1, 100000)", "(1, 10)", "(1, 10000)", "(1, 10)").Replace(fill))
					}
				case plan:
					planAll(t, pool, conn.Conn(), false)
				default:
					execute(t, pool, step)
				}
			}
			planAll(t, pool, conn.Conn(), true)
		})
	}
}

// planAll explains every statement, and checks the plans.
func planAll(t *testing.T, pool *pgxpool.Pool, conn *pgx.Conn, check bool) {
	t.Helper()
	known := func(column, table string) (ids []uuid.UUID) {
		const newest = "SELECT %[1]s FROM upcall.%[2]s ORDER BY %[1]s DESC LIMIT %[3]d"
		rows, err := pool.Query(t.Context(), fmt.Sprintf(newest, column, table, planBatch))
		if err != nil {
			t.Fatal(err)
		}
		if ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
			t.Fatal(err)
		}
		if len(ids) < planBatch { // there are none yet
			ids = planIDs(true)
		}
		slices.Reverse(ids)
		return ids
	}
	execute(t, pool, "INSERT INTO upcall.revoked_uploads VALUES ('"+leakedUpload+"', now()) ON CONFLICT DO NOTHING")
	leaked := slices.Repeat([]uuid.UUID{uuid.MustParse(leakedUpload)}, planBatch)
	fresh, uploads, revoked := planIDs(false), planIDs(true), known("upload_id", "revoked_uploads")
	record := func(ids, uploads []uuid.UUID) string {
		return planCall(eventKind.insert, eventFields, map[string][]uuid.UUID{"id": ids, "upload_id": uploads})
	}
	for name, call := range map[string]string{
		"tokens":      record(fresh, uploads),
		"no tokens":   record(fresh, nil),
		"repeats":     record(known("id", "callback_ids"), nil),
		"now a token": record(known("id", "callback_ids"), uploads),
		"revoked":     record(fresh, revoked),
		"leaked":      record(fresh, leaked),
		"issue":       planCall(issuedKind.insert, issuedFields, map[string][]uuid.UUID{"upload_id": uploads}),
		"find":        fmt.Sprintf("upcall_find('%s', '%s')", fresh[0], uploads[0]),
		"revoke":      fmt.Sprintf("upcall_revoke('%s')", uploads[0]),
	} {
		plan, jit := explain(t, conn, call)
		if check {
			plan.check(t, name, jit)
		}
	}
}

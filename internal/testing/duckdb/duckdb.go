// Package duckdb runs DuckDB, from npm, within a test: a reader of files that knows nothing of us.
package duckdb

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"upcall/internal/testing/toolchain"
)

// version is the newest of @duckdb/node-api.
const version = "1.5.6-r.1"

// serverJS answers each line, a statement in JSON, with a line.
const serverJS = `
const { DuckDBInstance } = require("@duckdb/node-api");
(async () => {
  const connection = await (await DuckDBInstance.create(":memory:")).connect();
  const lines = require("readline").createInterface({ input: process.stdin }); // not before: it would lose lines
  for await (const line of lines) {
    let answer;
    try {
      const got = await connection.runAndReadAll(JSON.parse(line));
      answer = { names: got.columnNames(), types: got.columnTypes().map(String), rows: got.getRowsJson() };
    } catch (e) {
      answer = { error: String(e) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
})();
`

// A DB is a database in memory, for one goroutine.
type DB struct {
	in  io.Writer
	out *bufio.Reader
}

// A Result is what a statement returns. Integers of 64 bits and more are texts.
type Result struct {
	Names, Types []string
	Rows         [][]any
	Error        string
}

// Open starts a database that ends with the test. The test has asked for node and npm. It is
// skipped if the package cannot be fetched.
func Open(t testing.TB) *DB {
	t.Helper()
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts",
		"--prefer-offline", "@duckdb/node-api@"+version)
	if out, err := install.CombinedOutput(); err != nil {
		toolchain.NotRun(t, fmt.Errorf("npm install: %w: %s", err, out))
	}
	script := filepath.Join(dir, "server.js")
	if err := os.WriteFile(script, []byte(serverJS), 0o600); err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", script)
	node.Stderr = os.Stderr
	in, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = node.Wait() })
	return &DB{in, bufio.NewReader(out)}
}

// Query runs a statement, which must succeed.
func (db *DB) Query(t testing.TB, sql string) Result {
	t.Helper()
	text, err := json.Marshal(sql)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.in.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
	line, err := db.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("DuckDB ended: %v", err)
	}
	var got Result
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if got.Error != "" {
		t.Fatalf("%s: %s", sql, got.Error)
	}
	return got
}

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/internal/loadgen"
	"upcall/internal/rollup"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/toolchain"
	"upcall/internal/testing/wait"
)

// A backupWorld is a receiver with the rights of docs/database.md, whose server is lost and restored, and
// what reads its log: an application that is told, and a client of the API.
type backupWorld struct {
	dir, host, public, admin string
	env                      []string // of the receiver
	messages                 [][]byte // callbacks
	sent                     int
	key, cursor              string
	read                     map[string]int // how often the client read each event

	mu   sync.Mutex
	told map[uuid.UUID]bool
}

// url returns the URL of a database for a role whose password is secret.
func (w *backupWorld) url(role, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, "secret"), Host: w.host, Path: "/" + database}
	return u.String()
}

// run runs a script with the variables of docs/backup.md.
func (w *backupWorld) run(t *testing.T, script string) string {
	t.Helper()
	shell := exec.CommandContext(t.Context(), "sh", "-euc", script)
	shell.Dir = w.dir
	shell.Env = []string{proc.QuickExit, "PATH=" + programs(t) + ":" + os.Getenv("PATH"),
		"ADMIN=" + strings.TrimSuffix(w.url("admin", ""), "/"), "OWNER=" + strings.TrimSuffix(w.url("upcall_owner", ""), "/")}
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s\n%s", err, script, out)
	}
	return string(out)
}

// prepare gives a new server its superuser.
func (w *backupWorld) prepare(t *testing.T, s *dbtest.Server) {
	t.Helper()
	w.host = net.JoinHostPort("127.0.0.1", fmt.Sprint(s.Port()))
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/postgres"
	dbtest.Execute(t, u.String(), "CREATE ROLE admin SUPERUSER LOGIN PASSWORD 'secret'")
}

// start sets up the database, as docs/database.md says, and the receiver.
func (w *backupWorld) start(t *testing.T) *dbtest.Server {
	t.Helper()
	server := dbtest.NewServer(t)
	w.prepare(t, server)
	for _, statement := range []string{"DROP DATABASE upcall", "CREATE ROLE upcall_owner CREATEROLE LOGIN PASSWORD 'secret'",
		"CREATE ROLE upcall_receiver LOGIN PASSWORD 'secret'", "CREATE DATABASE upcall OWNER upcall_owner"} {
		dbtest.Execute(t, w.url("admin", "postgres"), statement)
	}
	w.run(t, `UPCALL_DATABASE_URL=$OWNER/upcall receiver migrate up; UPCALL_DATABASE_URL=$OWNER/upcall receiver maintain`)
	for _, grant := range dbtest.Grants(t, "../../docs/database.md", "upcall_receiver") {
		dbtest.Execute(t, w.url("upcall_owner", "upcall"), strings.ReplaceAll(grant, "ROLE", "upcall_receiver"))
	}
	// Numbers of transactions that the next server has not come to.
	dbtest.Execute(t, w.url("admin", "upcall"), `CREATE PROCEDURE public.burn() LANGUAGE plpgsql AS $$
		BEGIN FOR i IN 1..20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`)
	dbtest.Execute(t, w.url("admin", "upcall"), "CALL public.burn()")

	app := httptest.NewServer(http.HandlerFunc(w.tell))
	t.Cleanup(app.Close)
	keys := loadgen.NewKeyServer()
	t.Cleanup(keys.Close)
	generator, err := loadgen.New(keys.KeyURL)
	if err != nil {
		t.Fatal(err)
	}
	if w.messages, err = generator.Wire(300, true); err != nil {
		t.Fatal(err)
	}
	w.public, w.admin = servetest.FreeAddress(t), servetest.FreeAddress(t)
	w.env = []string{proc.QuickExit, "UPCALL_DATABASE_URL=" + w.url("upcall_receiver", "upcall"), "UPCALL_TOKEN_KEYS=" + loadgen.TokenKeys,
		"UPCALL_LISTEN=" + w.public, "UPCALL_ADMIN_LISTEN=" + w.admin, "UPCALL_SPOOL_DIR=" + filepath.Join(w.dir, "spool"),
		"UPCALL_TRUST_KEY_URLS=" + keys.KeyURL, "UPCALL_LOG_LEVEL=warn", "UPCALL_HOOKS_ALLOW_HTTP=true",
		"UPCALL_HOOKS_ALLOW_CIDRS=127.0.0.0/8"}
	w.run(t, `export UPCALL_DATABASE_URL=$OWNER/upcall UPCALL_HOOKS_ALLOW_HTTP=true UPCALL_HOOKS_ALLOW_CIDRS=127.0.0.0/8
		receiver hooks add --name app --url `+app.URL+`/ >/dev/null; receiver keys add --role viewer --id reader >key`)
	key, err := os.ReadFile(filepath.Join(w.dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	w.key = strings.TrimSpace(string(key))
	receiver := exec.CommandContext(t.Context(), filepath.Join(programs(t), "receiver"), "serve")
	receiver.Env = w.env
	proc.Program(t, receiver, os.Interrupt)
	w.ready(t, "migrated and ready", "months ahead")
	return server
}

// ready waits until the receiver is ready and says so in these words.
func (w *backupWorld) ready(t *testing.T, what, words string) {
	t.Helper()
	wait.Until(t, what, func() bool {
		response, err := http.Get("http://" + w.admin + "/readyz")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		text := make([]byte, 1000)
		n, _ := response.Body.Read(text)
		return response.StatusCode == http.StatusOK && strings.Contains(string(text[:n]), words)
	})
}

// send sends as many callbacks, which must all be acknowledged.
func (w *backupWorld) send(t *testing.T, n int, durable string) {
	t.Helper()
	client := &loadgen.Client{Addr: w.public, Closing: true}
	kept := 0
	for _, message := range w.messages[w.sent : w.sent+n] {
		status, body, err := client.Send(message)
		if err != nil || status != http.StatusOK {
			t.Fatalf("callback: %d, %s, %v", status, body, err)
		}
		if strings.Contains(string(body), `"durable":"`+durable+`"`) {
			kept++
		}
	}
	w.sent += n
	if kept == 0 {
		t.Errorf("none of %d callbacks is in %s: this tests nothing", n, durable)
	}
}

// tell is the application.
func (w *backupWorld) tell(rw http.ResponseWriter, r *http.Request) {
	id, err := uuid.Parse(r.Header.Get("webhook-id"))
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[id] = true
}

func (w *backupWorld) countTold() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.told)
}

// events reads the log from a cursor to its end.
func (w *backupWorld) events(t *testing.T, after string, got func(id string)) (next string) {
	t.Helper()
	for {
		from := "" // the oldest that is kept
		if after != "" {
			from = "&after=" + after
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.admin+"/v1/events?limit=50"+from, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+w.key)
		status, body := servetest.Do(t, r)
		var page struct {
			Events []struct {
				ID string `json:"event_id"`
			}
			Next string
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || status != http.StatusOK {
			t.Fatalf("%d, %v: %s", status, err, body)
		}
		for _, e := range page.Events {
			got(e.ID)
		}
		if after = page.Next; len(page.Events) == 0 {
			return after
		}
	}
}

// reads lets the client go on until it has read so many different events.
func (w *backupWorld) reads(t *testing.T, events int) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("the client of the API reads %d events", events), func() bool {
		w.cursor = w.events(t, w.cursor, func(id string) { w.read[id]++ })
		return len(w.read) >= events
	})
}

// TestBackupPage runs the commands of docs/backup.md: a dump beside a receiver at work, the loss of the server, and a
// restore into another one while callbacks go on. Nothing that the dump or the spool has is lost or counted twice, for
// an application, a client with its old cursor, a new client, and the counts.
func TestBackupPage(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "standby") // pg_dump comes with it
	text, err := os.ReadFile("../../docs/backup.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks, statements := blocksOf(string(text), "sh"), blocksOf(string(text), "postgres")
	if len(blocks) != 4 || len(statements) != 1 {
		t.Fatalf("the page has %d blocks of commands and %d of statements", len(blocks), len(statements))
	}
	w := &backupWorld{dir: t.TempDir(), read: make(map[string]int), told: make(map[uuid.UUID]bool)}
	server := w.start(t)
	w.send(t, 100, "postgres")
	w.reads(t, 60)
	wait.Until(t, "the application is told", func() bool { return w.countTold() == w.sent })
	w.run(t, blocks[0])

	port := server.Port()
	server.Kill(t)
	w.send(t, 40, "spool")
	w.prepare(t, dbtest.NewServerAt(t, port))
	w.send(t, 20, "spool")
	w.takeAway(t, statements[0])
	w.run(t, blocks[1])
	w.run(t, blocks[2])
	w.send(t, 20, "spool")
	if out := w.run(t, blocks[3]); !strings.Contains(out, "cleared the transaction numbers of 100 events") {
		t.Errorf("there was nothing to repair, so this tests less: %s", out)
	}
	wait.Until(t, "the receiver has the restored database, and its spool is empty", func() bool {
		values, err := loadgen.Metrics(t.Context(), w.admin, "upcall_database_away", "upcall_spool_depth")
		return err == nil && values[0] == 0 && values[1] == 0
	})
	w.send(t, 20, "postgres")
	w.check(t)
}

// blocksOf returns the blocks of a page that are in a language.
func blocksOf(page, language string) (blocks []string) {
	for _, parts := range strings.Split(page, "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(parts, "```\n")
		blocks = append(blocks, block)
	}
	return blocks
}

// takeAway runs the statements of the page that take a damaged database away, to which someone is connected.
func (w *backupWorld) takeAway(t *testing.T, statements string) {
	t.Helper()
	dbtest.Execute(t, w.url("admin", "postgres"), "CREATE DATABASE upcall")
	user, err := pgx.Connect(t.Context(), w.url("admin", "upcall"))
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close(context.WithoutCancel(t.Context()))
	w.run(t, "psql --no-psqlrc --quiet --output /dev/null --set ON_ERROR_STOP=1 \"$ADMIN/postgres\" <<'END'\n"+statements+"END\n")
	if err := user.Ping(t.Context()); err == nil {
		t.Error("who was connected to the damaged database still is")
	}
	for _, name := range []string{"upcall", "damaged"} {
		if conn, err := pgx.Connect(t.Context(), w.url("admin", name)); err == nil {
			conn.Close(t.Context())
			t.Errorf("the database %s takes connections", name)
		}
	}
}

// check holds that each consumer has each event.
func (w *backupWorld) check(t *testing.T) {
	t.Helper()
	wait.Until(t, "the application is told of all", func() bool { return w.countTold() == w.sent })
	w.reads(t, w.sent)
	conn, err := pgx.Connect(t.Context(), w.url("upcall_owner", "upcall"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var counted int
	wait.Until(t, "all are counted", func() bool {
		const query = "SELECT coalesce(sum(uploads), 0)::int FROM upcall.upload_hourly"
		if err := conn.QueryRow(t.Context(), query).Scan(&counted); err != nil {
			t.Fatal(err)
		}
		return counted >= w.sent
	})
	differing, compared, err := rollup.Differences(t.Context(), conn, 10)
	if err != nil || len(differing) > 0 || compared < w.sent || counted != w.sent {
		t.Errorf("of %d uploads %d are counted; %q, %v", w.sent, counted, differing, err)
	}
	fresh := make(map[string]int)
	w.events(t, "", func(id string) { fresh[id]++ })
	for id, times := range fresh {
		if parsed, err := uuid.Parse(id); err != nil || times != 1 || !w.told[parsed] || w.read[id] == 0 {
			t.Errorf("event %s is %d times in the log; the application was told: %v; the client has it %d times", id, times,
				w.told[parsed], w.read[id])
		}
	}
	if len(fresh) != w.sent || len(w.read) != w.sent {
		t.Errorf("%d callbacks were acknowledged, the log has %d, the client %d", w.sent, len(fresh), len(w.read))
	}
}

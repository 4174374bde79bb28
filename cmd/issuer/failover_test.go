package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/ossemu"
	"upcall/internal/receiver"
	"upcall/internal/uploadtoken"
)

// asReceiver makes the test's own program run as a receiver: its value is the database's
// URL, a space, and the URL of the emulator's key.
const asReceiver = "ISSUER_TEST_AS_RECEIVER"

const failoverKeys = "k1:hunter-0123456789abcdef"

// serveReceiver is that receiver. It writes its address to standard output and ends when
// it is killed, or when standard input does, so that it does not outlive the test.
func serveReceiver(setting string) error {
	database, keyURL, _ := strings.Cut(setting, " ")
	keys, err := uploadtoken.ParseKeys(failoverKeys)
	if err != nil {
		return err
	}
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		bufio.NewReader(os.Stdin).ReadString('\n')
	}()
	fmt.Println(public.Addr())
	return receiver.Run(ctx, receiver.Config{
		DatabaseURL: database, TrustKeyURLs: []string{keyURL}, Admission: admission.Config{Tokens: keys},
		Logger: slog.New(slog.DiscardHandler),
	}, public, admin)
}

// startReceiver returns a receiver in a process of its own and its callback URL.
func startReceiver(t *testing.T, database, keyURL string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asReceiver+"="+database+" "+keyURL)
	cmd.Stderr = os.Stderr
	alive, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		alive.Close()
		cmd.Wait() // killed or not: it is gone
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the receiver did not start: %v", err)
	}
	return cmd, "http://" + strings.TrimSpace(address) + "/oss/callback"
}

// TestFailover uploads without a break, by several uploaders, with two receivers on one
// database as callback URLs, and kills the first receiver in the middle. Every upload is
// answered by a receiver, and has its one row.
func TestFailover(t *testing.T) {
	t.Parallel()
	const uploads, uploaders, killAfter = 400, 8, 150
	database := dbtest.URL(t)
	w := newWorld(t)
	keyURL := w.env["OSS_ENDPOINT"] + ossemu.PublicKeyPath
	first, firstURL := startReceiver(t, database, keyURL)
	_, secondURL := startReceiver(t, database, keyURL)
	w.env["UPCALL_TOKEN_KEYS"] = failoverKeys

	var next, answered atomic.Int64
	var mu sync.Mutex
	issued := make(map[string]string) // upload id to key
	var wg sync.WaitGroup
	for range uploaders {
		wg.Go(func() {
			for n := next.Add(1); n <= uploads; n = next.Add(1) {
				key := fmt.Sprintf("failover/%d.txt", n)
				u := executeJSON(t, w.env, "put", "--bucket", "demo", "--key", key, "--callback-url", firstURL, "--callback-url", secondURL)
				status, body := send(t, u.URL, u.Headers)
				var got struct {
					Status   string `json:"status"`
					UploadID string `json:"upload_id"`
				}
				if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Status != "ok" || got.UploadID != u.UploadID {
					t.Errorf("upload %d: status %d: %s", n, status, body)
				}
				mu.Lock()
				issued[u.UploadID] = key
				mu.Unlock()
				if answered.Add(1) == killAfter {
					if err := first.Process.Kill(); err != nil { // SIGKILL: nothing is finished, nothing is said
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()

	pool, err := pgxpool.New(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	rows, err := pool.Query(t.Context(), "SELECT upload_id::text, object_key FROM upcall.upload_events")
	if err != nil {
		t.Fatal(err)
	}
	recorded := 0
	var id, key string
	for rows.Next() {
		if err := rows.Scan(&id, &key); err != nil {
			t.Fatal(err)
		}
		recorded++
		if issued[id] != key {
			t.Errorf("%s of upload %s was never issued, or is there twice", key, id)
		}
		delete(issued, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if recorded != uploads || len(issued) != 0 {
		t.Errorf("%d rows for %d uploads; lost: %v", recorded, uploads, issued)
	}
	w.checkBothCalled(t, firstURL, secondURL)
}

// checkBothCalled makes sure that the test tested something.
func (w world) checkBothCalled(t *testing.T, first, second string) {
	t.Helper()
	resp, err := http.Get(w.env["OSS_ENDPOINT"] + "/_ossemu/callbacks")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	if text := string(all); !strings.Contains(text, first) || !strings.Contains(text, second) {
		t.Errorf("only one receiver was called:\n%.2000s", text)
	}
}

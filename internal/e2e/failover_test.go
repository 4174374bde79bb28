package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/receiver"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/uploadtoken"
)

const failoverKeys = "k1:hunter-0123456789abcdef"

// issuer returns an issuer within this process.
func (w world) issuer(t *testing.T) *issue.Issuer {
	t.Helper()
	keys, err := uploadtoken.ParseKeys(failoverKeys)
	if err != nil {
		t.Fatal(err)
	}
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: w.gate.URL,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := issue.New(issue.Config{OSS: client, Tokens: keys})
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// beReceiver runs a receiver in a child until it is killed. Its arguments are the URLs of the
// database and of the public key. It prints its address.
func beReceiver() {
	keys, err := uploadtoken.ParseKeys(failoverKeys)
	if err != nil {
		panic(err)
	}
	cfg := receiver.Config{
		DatabaseURL: os.Args[1], TrustKeyURLs: []string{os.Args[2]}, Admission: admission.Config{Tokens: keys},
		Logger: slog.New(slog.DiscardHandler),
	}
	proc.Serve(func(ctx context.Context, public, admin net.Listener) error {
		return receiver.Run(ctx, cfg, public, admin)
	})
}

// startReceiver starts a receiver in a child and returns both the child and its callback URL.
func startReceiver(t *testing.T, database, keyURL string) (*proc.Child, string) {
	t.Helper()
	child := proc.Start(t, "receiver", database, keyURL)
	return child, "http://" + child.FirstLine(t) + "/oss/callback"
}

// TestFailover runs several uploaders at once, with two receivers on one database as callback
// URLs, and kills the first receiver on the way. It checks that a receiver answers for every
// upload and that every upload has one row.
func TestFailover(t *testing.T) {
	t.Parallel()
	const uploads, uploaders, killAfter = 400, 8, 150
	database := dbtest.URL(t)
	w := newWorld(t)
	keyURL := w.gate.URL + ossemu.PublicKeyPath
	first, firstURL := startReceiver(t, database, keyURL)
	_, secondURL := startReceiver(t, database, keyURL)
	issuer := w.issuer(t)

	var next, answered atomic.Int64
	var mu sync.Mutex
	issued := make(map[uuid.UUID]string) // keys
	var wg sync.WaitGroup
	for range uploaders {
		wg.Go(func() {
			for n := next.Add(1); n <= uploads; n = next.Add(1) {
				key := fmt.Sprintf("failover/%d.txt", n)
				u, _, err := issuer.Issue(t.Context(), issue.Request{
					Object: oss.Object{Bucket: ossfake.Bucket, Key: key}, Expires: time.Hour,
					Callback: &issue.CallbackSpec{URLs: []string{firstURL, secondURL}},
				})
				if err != nil {
					t.Error(err)
					return
				}
				status, body := send(t, u.Request())
				var got struct {
					Status   string    `json:"status"`
					UploadID uuid.UUID `json:"upload_id"`
				}
				err = json.Unmarshal([]byte(body), &got)
				if err != nil || status != http.StatusOK || got.Status != "ok" || got.UploadID != u.ID {
					t.Errorf("upload %d: status %d: %s", n, status, body)
				}
				mu.Lock()
				issued[u.ID] = key
				mu.Unlock()
				if answered.Add(1) == killAfter {
					first.Kill(t) // by SIGKILL, so it cannot finish anything
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
	rows, err := pool.Query(t.Context(), "SELECT upload_id, object_key FROM upcall.upload_events")
	if err != nil {
		t.Fatal(err)
	}
	recorded := 0
	var id uuid.UUID
	var key string
	for rows.Next() {
		if err := rows.Scan(&id, &key); err != nil {
			t.Fatal(err)
		}
		recorded++
		if issued[id] != key {
			t.Errorf("%s of upload %s was never issued, or is recorded twice", key, id)
		}
		delete(issued, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if recorded != uploads || len(issued) != 0 {
		t.Errorf("%d rows for %d uploads; %d are lost", recorded, uploads, len(issued))
	}
	w.checkBothCalled(t, firstURL, secondURL)
}

// checkBothCalled checks that both receivers were called; otherwise the test proves nothing.
func (w world) checkBothCalled(t *testing.T, first, second string) {
	t.Helper()
	if _, text := servetest.Get(t, w.emulator+"/_ossemu/callbacks"); !strings.Contains(text, first) || !strings.Contains(text, second) {
		t.Errorf("only one receiver was called:\n%.2000s", text)
	}
}

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
	"upcall/internal/uploadtoken"
)

// A lostWorld is a receiver that can be killed, the emulator, which pushes through this process, and
// an application that is told of uploads.
type lostWorld struct {
	database, emulator, public, admin string
	issuer                            *issue.Issuer
	env                               []string // of the receiver
	running                           *runningReceiver

	mu     sync.Mutex
	pushes map[string]*pushed            // by object key
	told   map[string]map[uuid.UUID]bool // events by upload id
}

// A runningReceiver is a process.
type runningReceiver struct {
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan struct{}
}

// A pushed is what became of one notification.
type pushed struct {
	attempts int
	taken    bool
}

func newLostWorld(t *testing.T) *lostWorld {
	t.Helper()
	w := &lostWorld{database: dbtest.URL(t), pushes: make(map[string]*pushed), told: make(map[string]map[uuid.UUID]bool)}
	w.public, w.admin = servetest.FreeAddress(t), servetest.FreeAddress(t)
	mns := httptest.NewServer(http.HandlerFunc(w.push))
	t.Cleanup(mns.Close)
	app := httptest.NewServer(http.HandlerFunc(w.tell))
	t.Cleanup(app.Close)
	w.emulator = ossfake.Start(t, func(c *ossemu.Config) {
		c.NotifyURL, c.NotifyTopic = mns.URL+"/oss/notify", "59/uploads"
		// What MNS waits 10 to 20 s for takes 0.1 to 0.2 s.
		c.After = func(d time.Duration) <-chan time.Time { return time.After(d / 100) }
	})
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("secret", "whsec_bG9jYWwtc3RhY2stb25seS0wMTIzNDU2Nzg5YWJjZGVm")
	w.env = []string{proc.QuickExit, "UPCALL_DATABASE_URL=" + w.database, "UPCALL_TOKEN_KEYS=" + failoverKeys,
		"UPCALL_LISTEN=" + w.public, "UPCALL_ADMIN_LISTEN=" + w.admin, "UPCALL_SPOOL_DIR=" + filepath.Join(dir, "spool"),
		"UPCALL_TRUST_KEY_URLS=" + w.emulator + ossemu.PublicKeyPath,
		"UPCALL_NOTIFY_TOPICS=59/uploads", "UPCALL_NOTIFY_GRACE=2s", "UPCALL_RECONCILE_GRACE=1s",
		"UPCALL_HOOKS_FILE=" + write("hooks.yaml", "hooks: [{name: app, url: "+app.URL+"/, secret_file: "+secret+"}]"),
		"UPCALL_HOOKS_ALLOW_HTTP=true", "UPCALL_HOOKS_ALLOW_CIDRS=127.0.0.0/8", "UPCALL_HOOKS_SCHEDULE=100ms,1s,1s,1s",
		"OSS_ENDPOINT=" + w.emulator, "OSS_REGION=" + ossfake.Region, "UPCALL_PATH_STYLE=true",
		"OSS_ACCESS_KEY_ID=" + ossfake.AccessKeyID, "OSS_ACCESS_KEY_SECRET=" + ossfake.AccessKeySecret}
	w.makeIssuer(t)
	w.start(t)
	t.Cleanup(func() { w.kill(t) })
	return w
}

// makeIssuer makes an issuer with a ledger within this process.
func (w *lostWorld) makeIssuer(t *testing.T) {
	t.Helper()
	pool, err := eventstore.OpenRecorder(t.Context(), w.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	ledger, err := eventstore.NewLedger(eventstore.Config{Pool: pool, Writers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ledger.Close)
	keys, err := uploadtoken.ParseKeys(failoverKeys)
	if err != nil {
		t.Fatal(err)
	}
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: w.emulator,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	if w.issuer, err = issue.New(issue.Config{OSS: client, Tokens: keys, Ledger: ledger}); err != nil {
		t.Fatal(err)
	}
}

// start starts the receiver and waits until it answers.
func (w *lostWorld) start(t *testing.T) {
	t.Helper()
	r := &runningReceiver{ended: make(chan struct{})}
	r.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(programs(t), "receiver"), "serve")
	r.cmd.Env, r.cmd.Stderr = w.env, &r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = r.cmd.Wait(); close(r.ended) }() // its state tells
	w.running = r
	wait.Until(t, "the receiver answers", func() bool {
		select {
		case <-r.ended:
			t.Fatalf("the receiver has ended: %v: %s", r.cmd.ProcessState, &r.log)
		default:
		}
		response, err := http.Get("http://" + w.admin + "/readyz")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	})
}

// kill kills the receiver with SIGKILL, so that it cannot finish anything.
func (w *lostWorld) kill(t *testing.T) {
	t.Helper()
	_ = w.running.cmd.Process.Kill()
	<-w.running.ended
	if state := w.running.cmd.ProcessState; state.ExitCode() != -1 {
		t.Errorf("the receiver had ended: %v: %s", state, &w.running.log)
	}
}

// push passes a push of the emulator on to the receiver, and notes whether it was taken.
func (w *lostWorld) push(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	status := http.StatusBadGateway
	if err == nil {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+w.public+r.RequestURI, bytes.NewReader(body))
		if err != nil {
			panic(err)
		}
		out.Header = r.Header.Clone()
		if response, err := http.DefaultClient.Do(out); err == nil {
			status = response.StatusCode
			response.Body.Close()
		}
	}
	key := pushedKey(body)
	w.mu.Lock()
	if w.pushes[key] == nil {
		w.pushes[key] = new(pushed)
	}
	w.pushes[key].attempts++
	w.pushes[key].taken = w.pushes[key].taken || status == http.StatusNoContent
	w.mu.Unlock()
	rw.WriteHeader(status)
}

// pushedKey returns the key of the object that a push is about.
func pushedKey(body []byte) string {
	var envelope struct{ Message string }
	var message struct {
		Events []struct {
			OSS struct{ Object struct{ Key string } }
		}
	}
	if err := xml.Unmarshal(body, &envelope); err != nil {
		panic(err)
	}
	text, err := base64.StdEncoding.DecodeString(envelope.Message)
	if err != nil {
		panic(err)
	}
	if err := json.Unmarshal(text, &message); err != nil {
		panic(err)
	}
	return message.Events[0].OSS.Object.Key
}

// tell is the application: it notes which events of which upload it was told of.
func (w *lostWorld) tell(rw http.ResponseWriter, r *http.Request) {
	var message struct {
		ID   uuid.UUID
		Data struct {
			UploadID string `json:"upload_id"`
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told[message.Data.UploadID] == nil {
		w.told[message.Data.UploadID] = make(map[uuid.UUID]bool)
	}
	w.told[message.Data.UploadID][message.ID] = true
}

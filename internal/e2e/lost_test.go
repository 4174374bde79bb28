package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/wait"
)

// lostVariable says how many uploads [TestLostCallbacks] makes; make lost sets it.
const lostVariable = "UPCALL_TEST_LOST"

// A lostUpload is an upload and what became of its callback and its notification.
type lostUpload struct {
	id  uuid.UUID
	uid string

	noCallback, noNotification bool // the emulator loses them

	answered bool // OSS got an answer to the callback
}

func (u *lostUpload) key() string { return "lost/" + u.uid + ".txt" }

// TestLostCallbacks uploads through the emulator, which loses a third of the callbacks and, of those,
// a tenth of the notifications. After the notifications and one reconcile run every upload is in the
// log once, with its custom variables, every hook was delivered, and upload_loss has the numbers. The
// second time the receiver is killed in between, so that more is lost, at both ends.
func TestLostCallbacks(t *testing.T) {
	t.Parallel()
	uploads, kills := 60, 3
	if n, err := strconv.Atoi(os.Getenv(lostVariable)); err == nil {
		uploads, kills = n, 10
	}
	for name, kills := range map[string]int{"steady": 0, "killed": kills} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newLostWorld(t).run(t, uploads, kills)
		})
	}
}

// choose says which callbacks and notifications are lost: exactly a third, and a tenth of those.
func choose(n int) []*lostUpload {
	all := make([]*lostUpload, n)
	for i, place := range rand.Perm(n) {
		all[place] = &lostUpload{uid: fmt.Sprintf("user-%d", place), noCallback: i < n/3, noNotification: i < n/30}
	}
	return all
}

// upload issues and uploads; the faults are set.
func (w *lostWorld) upload(ctx context.Context, u *lostUpload) error {
	issued, _, err := w.issuer.Issue(ctx, issue.Request{
		Object: oss.Object{Bucket: ossfake.Bucket, Key: u.key()}, Expires: time.Hour,
		Callback: &issue.CallbackSpec{URLs: []string{"http://" + w.public + "/oss/callback"}, Vars: map[string]string{"uid": u.uid}},
	})
	if err != nil {
		return err
	}
	u.id = issued.ID
	r, err := http.NewRequestWithContext(ctx, issued.Method, issued.URL, strings.NewReader("content of "+u.uid))
	if err != nil {
		return err
	}
	for name, value := range issued.Headers {
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		u.answered = true
		return nil
	case http.StatusNonAuthoritativeInfo:
		return nil
	}
	return fmt.Errorf("status %d", response.StatusCode)
}

// uploadAll uploads in groups. While it uploads some of the groups, it kills the receiver and starts it
// again.
func (w *lostWorld) uploadAll(t *testing.T, all []*lostUpload, kills int) {
	t.Helper()
	groups := max(2*kills, 6)
	killIn := make(map[int]bool)
	for _, group := range rand.Perm(groups)[:kills] {
		killIn[group] = true
	}
	for group := range groups {
		done := make(chan error, 1)
		go func() { done <- w.uploadGroup(t.Context(), all[group*len(all)/groups:(group+1)*len(all)/groups]) }()
		if killIn[group] {
			time.Sleep(rand.N(50 * time.Millisecond)) // at another moment of the uploads each time
			w.kill(t)
			w.start(t)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// uploadGroup uploads those with the same faults together.
func (w *lostWorld) uploadGroup(ctx context.Context, group []*lostUpload) error {
	for _, faults := range []ossemu.Faults{{}, {Drop: true}, {Drop: true, DropNotification: true}} {
		if err := w.setFaults(ctx, faults); err != nil {
			return err
		}
		var uploading errgroup.Group
		for _, u := range group {
			if u.noCallback == faults.Drop && u.noNotification == faults.DropNotification {
				uploading.Go(func() error { return w.upload(ctx, u) })
			}
		}
		if err := uploading.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// setFaults sets the faults of the emulator.
func (w *lostWorld) setFaults(ctx context.Context, faults ossemu.Faults) error {
	doc, err := json.Marshal(faults)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, w.emulator+"/_ossemu/faults", bytes.NewReader(doc))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("set faults: status %d", response.StatusCode)
	}
	return nil
}

// run uploads, waits for the notifications, lists the bucket once, and checks what became of all.
func (w *lostWorld) run(t *testing.T, uploads, kills int) {
	t.Helper()
	all := choose(uploads)
	w.uploadAll(t, all, kills)
	wait.Until(t, "MNS has pushed all, or given up", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, u := range all {
			if p := w.pushes[u.key()]; !u.noNotification && (p == nil || !p.taken && p.attempts < 4) {
				return false
			}
		}
		return true
	})
	viewer := strings.TrimSpace(w.receiver(t, "keys", "add", "--role", "viewer", "--id", "e2e"))
	w.idle(t, viewer)
	found := w.log(t)
	unknown := uploads - len(found)
	var report struct {
		Listed, Known, Missing, Recovered, Vanished, Foreign int
		TooOld                                               int `json:"too_old"`
	}
	out := w.receiver(t, "reconcile", "--bucket", ossfake.Bucket, "--format", "json")
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if report.Listed != uploads || report.Missing != unknown || report.Recovered != unknown ||
		report.Known != uploads-unknown || report.Vanished != 0 || report.Foreign != 0 || report.TooOld != 0 {
		t.Errorf("reconcile reported %s; %d of %d uploads were unknown", out, unknown, uploads)
	}
	w.idle(t, viewer)
	w.check(t, all, w.log(t), kills)
}

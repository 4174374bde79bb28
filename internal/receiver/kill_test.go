package receiver

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/admission"
	"upcall/internal/intake"
	"upcall/internal/testing/wait"
)

const childVariable = "UPCALL_RECEIVER_TEST_CHILD" // database URL, spool directory and key URL, in lines

// child is what this test binary does as a child: it is a receiver, until killed.
func child() {
	settings := strings.Split(os.Getenv(childVariable), "\n")
	if len(settings) != 3 {
		return
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		return l
	}
	public, admin := listen(), listen()
	fmt.Println(public.Addr())
	err := Run(context.Background(), Config{DatabaseURL: settings[0], SpoolDir: settings[1], SpoolMinFreeBytes: -1,
		TrustKeyURLs: []string{settings[2]}, Admission: admission.Config{TokenPolicy: admission.TokenOff}, Logger: slog.New(slog.DiscardHandler)}, public, admin)
	fmt.Println(err)
	os.Exit(1)
}

// TestReceiverKilled: receivers are killed with SIGKILL while they spool, and while they
// drain. The next one goes on, and in the end all that was acknowledged is a row.
func TestReceiverKilled(t *testing.T) {
	t.Parallel()
	database, keyURL, dir := startPostgres(t), keyServer(t), t.TempDir()
	databaseURL := database.server.URL()
	acknowledged, uncertain := make(map[uuid.UUID]bool), 0
	var mu sync.Mutex
	if err := database.server.Kill(); err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		if round == 2 {
			database.restart(t)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+strings.Join([]string{databaseURL, dir, keyURL}, "\n"))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		answered, enough := 0, make(chan struct{})
		for c := range 8 {
			group.Go(func() {
				client := &http.Client{Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				for i := 0; ; i++ {
					code, answer, took, err := call(client, "http://"+strings.TrimSpace(address), keyURL, fmt.Sprintf("bucket=demo&object=a&reqId=%d-%d-%d", round, c, i))
					mu.Lock()
					if err != nil { // killed: the callback may be kept or not
						uncertain++
						mu.Unlock()
						return
					}
					if code != 200 {
						if uncertain++; code != 503 || took < intake.Deadline { // else the machine is slow
							t.Errorf("got %d %s", code, answer)
						}
						mu.Unlock()
						continue
					}
					acknowledged[decodeAnswer(t, answer).EventID] = true
					if answered++; answered == 400 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		cmd.Process.Kill()
		group.Wait()
		cmd.Wait()
	}
	receiver := start(t, Config{DatabaseURL: databaseURL, TrustKeyURLs: []string{keyURL}, SpoolDir: dir, SpoolMinFreeBytes: -1})
	wait.Until(t, "the spool is empty", func() bool { return metric(t, receiver.admin, "upcall_spool_depth") == 0 })
	wantRows(t, databaseURL, acknowledged, uncertain)
}

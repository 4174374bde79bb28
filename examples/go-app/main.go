// Go-app is a small web application whose users upload files straight to OSS. It requests each
// upload from Upcall's issuer, is told of it by a hook, and shows it.
package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

//go:embed page.html
var page []byte

// An app keeps its uploads in memory. Yours has a database: put the id of each event that you
// are told of into a table with a unique key, in the transaction that does the work.
type app struct {
	issuer, key string // the issuer's URL, and our key for its API
	hooks       *standardwebhooks.Webhook

	mu      sync.Mutex
	waiting []upload // issued, and not recorded yet
	uploads []upload // recorded, the oldest first
	told    map[string]bool
}

// An upload is recorded once we are told of it.
type upload struct {
	ID         string     `json:"upload_id"`
	Key        string     `json:"object_key"`
	Size       int64      `json:"size"`
	MimeType   string     `json:"mime_type"`
	ReceivedAt *time.Time `json:"received_at"` // null until then
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	key, secret := os.Getenv("ISSUER_KEY"), os.Getenv("HOOK_SECRET")
	if key == "" || secret == "" {
		return errors.New("set ISSUER_KEY and HOOK_SECRET")
	}
	hooks, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return fmt.Errorf("HOOK_SECRET: %w", err)
	}
	issuer := cmp.Or(os.Getenv("ISSUER_URL"), "http://127.0.0.1:8082")
	a := &app{issuer: issuer, key: key, hooks: hooks, told: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.show)
	mux.HandleFunc("GET /uploads", a.list)
	mux.HandleFunc("POST /uploads", a.issue)
	mux.HandleFunc("POST /hooks", a.hook)
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "3000"))
	if err != nil {
		return err
	}
	fmt.Printf("open http://%s/\n", listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	return server.Serve(listener)
}

func (a *app) show(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page)
}

func (a *app) list(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer(w, http.StatusOK, append(append([]upload{}, a.uploads...), a.waiting...)) // [] rather than null
}

// issue requests an upload for the page, which performs it. Our key stays here.
func (a *app) issue(w http.ResponseWriter, r *http.Request) {
	var file struct {
		Name string `json:"name"`
		Type string `json:"type"`
		Size int64  `json:"size"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 10_000)).Decode(&file); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"detail": "this is not JSON"})
		return
	}
	status, issued, err := a.ask(r.Context(), map[string]any{
		"key":          "inbox/" + uuid.NewString() + "/" + file.Name,
		"content_type": cmp.Or(file.Type, "application/octet-stream"),
		"size":         file.Size,
		"vars":         map[string]string{"uid": "42"}, // who has logged in; the hook has it, too
	})
	if err != nil {
		log.Print(err)
		answer(w, http.StatusBadGateway, map[string]string{"detail": "the issuer cannot be reached"})
		return
	}
	if status == http.StatusCreated {
		a.mu.Lock()
		a.waiting = append(a.waiting, upload{ID: fmt.Sprint(issued["upload_id"]), Key: fmt.Sprint(issued["key"])})
		a.mu.Unlock()
	}
	answer(w, status, issued) // or a problem: its detail says what the policy does not allow
}

// ask calls the issuer.
func (a *app) ask(ctx context.Context, wanted map[string]any) (status int, issued map[string]any, err error) {
	body, err := json.Marshal(wanted)
	if err != nil {
		return 0, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.issuer+"/v1/uploads", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	err = json.NewDecoder(response.Body).Decode(&issued)
	return response.StatusCode, issued, err
}

// hook is told of uploads.
func (a *app) hook(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil || a.hooks.Verify(body, r.Header) != nil {
		http.Error(w, "not verified", http.StatusUnauthorized)
		return
	}
	var event struct {
		ID   string
		Type string
		Data upload
	}
	if err := json.Unmarshal(body, &event); err != nil {
		http.Error(w, "not an event", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if event.Type == "upcall.upload.recorded.v1" && !a.told[event.ID] { // it may come twice
		a.told[event.ID] = true
		a.uploads = append(a.uploads, event.Data)
		a.waiting = slices.DeleteFunc(a.waiting, func(u upload) bool { return u.ID == event.Data.ID })
	}
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"upcall/internal/apikey"
	"upcall/internal/eventstore"
	"upcall/internal/manifest"
	"upcall/internal/ossemu"
)

// A file to upload.
type file struct {
	key, contentType string
	content          []byte
	vars             map[string]string
}

func files() ([]file, error) {
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 320, 200))); err != nil {
		return nil, fmt.Errorf("encode picture: %w", err)
	}
	return []file{
		{"photos/sunset.png", "image/png", picture.Bytes(), map[string]string{"uid": "42", "album": "summer 2026"}},
		{"notes/hello.txt", "text/plain", []byte("Hello, OSS!\n"), map[string]string{"uid": "43"}},
	}, nil
}

// show runs uploads and forgeries through the loop and prints the results.
func (l *loop) show(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	uploads, err := files()
	if err != nil {
		return err
	}
	key, err := l.addKey(ctx)
	if err != nil {
		return err
	}
	for i, f := range uploads {
		fmt.Fprintf(out, "%d. Upload %s (%d bytes, %s)\n", i+1, f.key, len(f.content), f.contentType)
		if err := l.upload(ctx, out, key, f); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "%d. The rows, by SQL\n", len(uploads)+1)
	if err := l.printRows(ctx, out, len(uploads)); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d. Forged callbacks\n", len(uploads)+2)
	if err := l.forge(ctx, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d. The hook: an application is told of each upload\n", len(uploads)+3)
	return l.printHook(ctx, out, len(uploads))
}

// addKey creates an API key for the issuer.
func (l *loop) addKey(ctx context.Context) (string, error) {
	pool, err := eventstore.Open(ctx, l.databaseURL)
	if err != nil {
		return "", err
	}
	defer pool.Close()
	key, hash, err := apikey.New("demo")
	if err != nil {
		return "", err
	}
	added := eventstore.APIKey{ID: "demo", Hash: hash[:], Policy: "demo", CreatedAt: time.Now()}
	return key, eventstore.NewAPIKeys(pool).Add(ctx, added)
}

// issue requests an upload from the issuer, as an application does.
func (l *loop) issue(ctx context.Context, key string, f file) (manifest.Upload, error) {
	wanted, err := json.Marshal(map[string]any{"key": f.key, "content_type": f.contentType, "size": len(f.content), "vars": f.vars})
	if err != nil {
		return manifest.Upload{}, err
	}
	headers := map[string]string{"Authorization": "Bearer " + key, "Content-Type": "application/json"}
	status, answer, err := send(ctx, http.MethodPost, l.apiURL+"/v1/uploads", headers, wanted)
	if err != nil {
		return manifest.Upload{}, err
	}
	if status != http.StatusCreated {
		return manifest.Upload{}, fmt.Errorf("the issuer answered %d %s", status, answer)
	}
	var issued manifest.Upload
	err = json.Unmarshal([]byte(answer), &issued)
	return issued, err
}

// upload requests an upload and performs it as any HTTP client would.
func (l *loop) upload(ctx context.Context, out io.Writer, key string, f file) error {
	issued, err := l.issue(ctx, key, f)
	if err != nil {
		return fmt.Errorf("issue upload: %w", err)
	}
	host, _, _ := strings.Cut(issued.URL, "?")
	fmt.Fprintf(out, "   issued   %s %s?… until %s\n", issued.Method, host, issued.ExpiresAt.Format(time.TimeOnly))
	status, answer, err := send(ctx, issued.Method, issued.URL, issued.Headers, f.content)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	fmt.Fprintf(out, "   answer   %d %s\n\n", status, answer)
	if status != http.StatusOK {
		return fmt.Errorf("upload of %s was answered %d: the callback failed", f.key, status)
	}
	return nil
}

// printRows prints the events, and checks that the ledger knows each of them.
func (l *loop) printRows(ctx context.Context, out io.Writer, want int) error {
	pool, err := eventstore.OpenReader(ctx, l.databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	show := func(query string) ([][]string, error) {
		fmt.Fprintf(out, "   %s\n\n", strings.ReplaceAll(query, "\n\t", "\n   "))
		rows, err := eventstore.Table(ctx, pool, query)
		if err != nil {
			return nil, err
		}
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, row := range rows {
			fmt.Fprintln(table, "   "+strings.Join(row, "\t"))
		}
		fmt.Fprintln(table)
		return rows[1:], table.Flush()
	}
	rows, err := show(`SELECT object_key, size, mime_type, image_width AS width, image_height AS height, upload_id, vars
	FROM upcall.upload_events ORDER BY received_at`)
	if err != nil {
		return err
	}
	if len(rows) != want {
		return fmt.Errorf("there are %d rows, want %d", len(rows), want)
	}
	rows, err = show("SELECT sum(issued) AS issued, sum(uploaded) AS uploaded FROM upcall.upload_funnel")
	if err != nil {
		return err
	}
	if n := strconv.Itoa(want); !slices.Equal(rows[0], []string{n, n}) {
		return fmt.Errorf("the ledger has %s uploads, of which %s were uploaded; want %d", rows[0][0], rows[0][1], want)
	}
	return nil
}

// forge sends callbacks as attackers would, and fails unless each is refused.
func (l *loop) forge(ctx context.Context, out io.Writer) error {
	const target, body = "/oss/callback", "bucket=demo&object=photos%2Fsunset.png&size=1"
	trusted := l.ossURL + ossemu.PublicKeyPath
	for _, attack := range []struct{ what, signature, keyURL, want string }{
		{"a made-up signature", ossemu.SignCallback(target, []byte("another body")), trusted, "bad_signature"},
		{"a key of the attacker's own", ossemu.SignCallback(target, []byte(body)),
			"https://gosspublic.alicdn.com.evil.example/key.pem", "untrusted_key"},
		{"signed by OSS for another customer", ossemu.SignCallback(target, []byte(body)), trusted, "bad_token"},
	} {
		headers := map[string]string{
			"Content-Type": "application/x-www-form-urlencoded", "Authorization": attack.signature,
			"x-oss-pub-key-url": base64.StdEncoding.EncodeToString([]byte(attack.keyURL)),
		}
		status, answer, err := send(ctx, http.MethodPost, l.callbackURL, headers, []byte(body))
		if err != nil {
			return fmt.Errorf("forge callback: %w", err)
		}
		fmt.Fprintf(out, "   %-36s %d %s\n", attack.what, status, answer)
		if status != http.StatusForbidden || !strings.Contains(answer, attack.want) {
			return errors.New("a forged callback was not refused as it should be")
		}
	}
	return nil
}

// send sends a request and returns the status and the body of the answer.
func send(ctx context.Context, method, url string, headers map[string]string, body []byte) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, strings.TrimSpace(string(answer)), err
}

// Package loadgen makes signed callbacks, as OSS sends them, for the benchmark and the
// fault injection. Each is for another upload, has a token, and is signed with the
// emulator's 512-bit key.
package loadgen

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/ossemu"
	"upcall/internal/uploadtoken"
)

const (
	// Path is the callback path that the callbacks are signed for.
	Path = "/oss/callback"
	// TokenKeys is what a receiver needs to check their tokens.
	TokenKeys = "load:0123456789abcdef0123456789abcdef"
)

// A KeyServer serves the public key that the callbacks name.
type KeyServer struct {
	*httptest.Server
	KeyURL string
}

// NewKeyServer starts one on a free port of the loopback.
func NewKeyServer() *KeyServer { return serveKey(httptest.NewServer) }

// NewKeyServerOn starts one on a listener.
func NewKeyServerOn(listener net.Listener) *KeyServer {
	return serveKey(func(handler http.Handler) *httptest.Server {
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: handler}}
		server.Start()
		return server
	})
}

func serveKey(start func(http.Handler) *httptest.Server) *KeyServer {
	server := start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, ossemu.PublicKeyPEM)
	}))
	return &KeyServer{server, server.URL + "/callback_pub_key.pem"}
}

// A Generator makes callbacks. Several goroutines may use it.
type Generator struct {
	keys     *uploadtoken.Keyring
	template string
	run      string // tells the request ids of one generator from those of another
	begun    time.Time
	keyURL   string // in Base64

	// Folder is where the object of callback i is. Default photos/2026/11.
	Folder func(i int) string
	// Objects is how many there are in a folder: more callbacks overwrite them. Default 0 is one
	// for each callback.
	Objects int
}

// New returns a generator of callbacks that name this key URL.
func New(keyURL string) (*Generator, error) {
	keys, err := uploadtoken.ParseKeys(TokenKeys)
	if err != nil {
		return nil, err
	}
	template, err := callbackspec.DefaultBody(callbackspec.Form, []string{"uid", "album"}, true)
	if err != nil {
		return nil, err
	}
	return &Generator{
		keys: keys, template: template, run: uuid.NewString()[:8], begun: time.Now(),
		keyURL: base64.StdEncoding.EncodeToString([]byte(keyURL)),
		Folder: func(int) string { return "photos/2026/11" },
	}, nil
}

// uploadID is a version 7 UUID like the issuer's: ids rise with time.
func (g *Generator) uploadID(i int) uuid.UUID {
	id := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Append(nil, g.run, "/", i))
	var milliseconds [8]byte
	binary.BigEndian.PutUint64(milliseconds[:], uint64(g.begun.UnixMilli()+int64(i/16)))
	copy(id[:6], milliseconds[2:])
	id[6] = id[6]&0x0f | 0x70
	return id
}

// Wire returns callbacks 0 to n-1 as HTTP/1.1 messages, as they are on the wire. If closing
// is set, each asks to close its connection after the answer, as OSS does.
func (g *Generator) Wire(n int, closing bool) ([][]byte, error) {
	messages := make([][]byte, n)
	var group errgroup.Group
	workers := runtime.NumCPU()
	for worker := range workers {
		group.Go(func() (err error) {
			for i := worker; i < n && err == nil; i += workers {
				messages[i], err = g.Message(i, closing)
			}
			return err
		})
	}
	return messages, group.Wait()
}

// Body returns the body of callback number i, a form. The same number is the same upload.
func (g *Generator) Body(i int) (string, error) {
	object := g.object(i)
	vars := callbackspec.Vars{"x:uid": strconv.Itoa(i % 1000), "x:album": "summer 2026"}
	terms := callbackspec.DefaultTerms(callbackspec.Form, nil, []string{"album", "uid"}, vars)
	token, err := g.keys.Mint(uploadtoken.Claims{
		UploadID: g.uploadID(i), Expires: g.begun.Add(24 * time.Hour), Bucket: "demo", Object: object,
		ContentType: "image/jpeg", Size: new(int64(100000 + i)), Terms: uploadtoken.Terms(terms),
	})
	if err != nil {
		return "", err
	}
	return callbackspec.Expand(g.template, callbackspec.Form, callbackspec.Values{
		"bucket": "demo", "object": object, "etag": fmt.Sprintf("D8E8FCA2DC0F896FD7CB4CB0%08X", i), "size": strconv.Itoa(100000 + i),
		"mimeType": "image/jpeg", "imageInfo.height": "768", "imageInfo.width": "1024", "imageInfo.format": "jpg",
		"crc64": "10148263420338452347", "contentMd5": "2Oj8otwPiW/Xy0ywAxuiSQ==", "clientIp": "203.0.113.7",
		"reqId": g.requestID(i), "operation": "PutObject",
		"x:uid": vars["x:uid"], "x:album": vars["x:album"], callbackspec.TokenVar: token,
	})
}

func (g *Generator) object(i int) string {
	number := i
	if g.Objects > 0 {
		number %= g.Objects
	}
	return fmt.Sprintf("%s/%s/%08d.jpg", g.Folder(i), g.run, number)
}

// Event returns what is recorded of callback number i, without id and time.
func (g *Generator) Event(i int) (*event.Event, error) {
	body, err := g.Body(i)
	if err != nil {
		return nil, err
	}
	callback, err := callbackspec.Parse(string(callbackspec.Form), []byte(body), nil)
	if err != nil {
		return nil, err
	}
	return &event.Event{Callback: callback, UploadID: uuid.NullUUID{UUID: g.uploadID(i), Valid: true}, Source: event.SourceCallback}, nil
}

func (g *Generator) requestID(i int) string { return fmt.Sprintf("%s%016X", g.run, i) }

// Message returns callback number i as [Generator.Wire] does.
func (g *Generator) Message(i int, closing bool) ([]byte, error) {
	body, err := g.Body(i)
	if err != nil {
		return nil, err
	}
	message := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n", Path, len(body))
	if closing {
		message = append(message, "Connection: close\r\n"...)
	}
	for _, header := range [][2]string{
		{"Authorization", ossemu.SignCallback(Path, []byte(body))},
		{"Content-Type", string(callbackspec.Form)},
		{"User-Agent", "aliyun-oss-callback"},
		{"X-Oss-Bucket", "demo"},
		{"X-Oss-Pub-Key-Url", g.keyURL},
		{"X-Oss-Request-Id", g.requestID(i)},
		{"X-Oss-Signature-Version", "1.0"},
		{"X-Oss-Tag", "CALLBACK"},
	} {
		message = fmt.Appendf(message, "%s: %s\r\n", header[0], header[1])
	}
	return append(append(message, "\r\n"...), body...), nil
}

package ossemu

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"
)

// How long a refused request's body is read on, in all and between two pieces.
const (
	lingerTime  = 30 * time.Second
	lingerPause = 5 * time.Second
)

// refuse answers with an error and then reads and drops the body, as OSS's front end
// does: a client that sends before it listens would see a reset connection and never
// the reason.
func (s *Server) refuse(c *call, err error) {
	control := http.NewResponseController(c.w)
	// Without this, net/http drops the connection when an answer comes before a long
	// body's end. Where it cannot be had there is no connection to keep.
	_ = control.EnableFullDuplex()
	c.writeError(err)
	_ = control.Flush()
	if strings.EqualFold(c.r.Header.Get("Expect"), "100-continue") {
		return // the client waits for leave to send, or has sent
	}
	stop := context.AfterFunc(s.closing, func() { _ = control.SetReadDeadline(time.Now()) })
	defer stop()
	piece := make([]byte, 64<<10)
	for end := time.Now().Add(lingerTime); time.Now().Before(end) && s.closing.Err() == nil; {
		_ = control.SetReadDeadline(time.Now().Add(lingerPause))
		if _, err := io.ReadFull(c.r.Body, piece); err != nil {
			return
		}
	}
}

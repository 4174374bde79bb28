package ossemu

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"
)

// How long the body of a refused request is read, in all and between two pieces.
const (
	lingerTime  = 30 * time.Second
	lingerPause = 5 * time.Second
)

// refuse answers with an error, then reads and drops the body, as OSS's front end does.
// Otherwise a client that sends all of its body before it reads would see a reset
// connection instead of the reason.
func (s *Server) refuse(c *call, err error) {
	control := http.NewResponseController(c.w)
	// Without full duplex, net/http drops the connection if the answer comes before the end
	// of a long body. An error means that there is no connection to keep.
	_ = control.EnableFullDuplex()
	c.writeError(err)
	_ = control.Flush()
	if strings.EqualFold(c.r.Header.Get("Expect"), "100-continue") {
		return // the client has not sent the body, or has sent all of it
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

package ossemu

import (
	"cmp"
	"io"
	"net/http"
	"strconv"
	"time"
)

const trafficLimitHeader = "x-oss-traffic-limit" // and the parameter of a URL

// Bounds of a traffic limit in bits a second.
const (
	minTrafficLimit = 245760
	maxTrafficLimit = 838860800
)

// checkTrafficLimit refuses limits that OSS refuses.
func checkTrafficLimit(c *call) error {
	for _, v := range []string{c.r.Header.Get(trafficLimitHeader), c.query[trafficLimitHeader]} {
		if n, err := strconv.Atoi(v); v != "" && (err != nil || n < minTrafficLimit || n > maxTrafficLimit) {
			return badArgument(trafficLimitHeader, v,
				"The traffic limit must be a number of bits a second from 245760 to 838860800.", "0004-00000502")
		}
	}
	return nil
}

// limited returns r, slowed to the request's traffic limit if it has one.
func (s *Server) limited(c *call, r io.Reader) io.Reader {
	text := cmp.Or(c.r.Header.Get(trafficLimitHeader), c.query[trafficLimitHeader])
	if text == "" {
		return r
	}
	bits, _ := strconv.Atoi(text) // checked before
	return &slowReader{Reader: r, rate: bits / 8, wait: func(d time.Duration) { s.wait(d, nil) }, begun: time.Now(), answer: c.w.Header()}
}

// A slowReader reads rate bytes a second. It tells an uploader how long it waited.
type slowReader struct {
	io.Reader
	rate   int
	wait   func(time.Duration)
	begun  time.Time
	answer http.Header

	read   int
	waited time.Duration
}

func (r *slowReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p[:min(len(p), r.rate/10)])
	r.read += n
	due := r.begun.Add(time.Duration(float64(r.read) / float64(r.rate) * float64(time.Second)))
	if pause := time.Until(due); pause > 0 {
		r.wait(pause)
		r.waited += pause
	}
	r.answer.Set("x-oss-qos-delay-time", strconv.FormatInt(r.waited.Milliseconds(), 10))
	return n, err
}

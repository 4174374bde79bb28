package ossemu

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// getObject serves GetObject and HeadObject.
func (s *Server) getObject(c *call) error {
	o, content, err := s.store.open(c.bucket, c.key)
	if err != nil {
		return err
	}
	defer content.Close() // only read
	if err := checkConditions(c.r.Header, o); err != nil {
		return err
	}
	if c.r.Method == http.MethodGet && strings.HasSuffix(o.Meta.StorageClass, "Archive") {
		return errObjectState.with("ObjectName", o.Key) // it would have to be restored first
	}
	first, length, partial, err := parseRange(c.r.Header.Get("Range"), o.Content.Size, c.r.Header.Get("x-oss-range-behavior") == "standard")
	if err != nil {
		return err
	}
	h := c.w.Header()
	c.describe(o)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", o.Meta.ContentType)
	h.Set("Last-Modified", o.LastModified.Format(http.TimeFormat))
	h.Set("x-oss-object-type", o.Type)
	h.Set("x-oss-storage-class", o.Meta.StorageClass)
	for name, value := range o.Meta.Headers {
		h.Set(name, value)
	}
	if tags, _ := parseQuery(o.Meta.Tagging); len(tags) > 0 { // checked when stored
		h.Set("x-oss-tagging-count", strconv.Itoa(len(tags)))
	}
	for _, name := range []string{
		"content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding",
	} {
		if v := c.query["response-"+name]; v != "" {
			h.Set(name, v)
		}
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+length-1, o.Content.Size))
	}
	if _, err := content.Seek(first, io.SeekStart); err != nil {
		return fmt.Errorf("seek object: %w", err)
	}
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.CopyN(c.w, s.limited(c, content), length); err != nil {
		return fmt.Errorf("send object: %w", err)
	}
	return nil
}

// objectMeta answers GetObjectMeta, by which the SDKs see whether an object exists.
func (s *Server) objectMeta(c *call) error {
	o, err := s.store.get(c.bucket, c.key)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("ETag", `"`+o.ETag+`"`)
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(o.Content.CRC64, 10))
	h.Set("Last-Modified", o.LastModified.Format(http.TimeFormat))
	h.Set("Content-Length", strconv.FormatInt(o.Content.Size, 10))
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) deleteObject(c *call) error {
	if err := s.remove(c, c.key, "DeleteObject"); err != nil {
		return err
	}
	return c.writeNothing(http.StatusNoContent)
}

// checkConditions applies If-Match and the like in the order of RFC 9110.
func checkConditions(h http.Header, o *object) error {
	modified := o.LastModified.Truncate(time.Second)
	if v := h.Get("If-Match"); v != "" {
		if !etagListed(v, o.ETag) {
			return errPrecondition.with("Condition", "If-Match")
		}
	} else if t, err := http.ParseTime(h.Get("If-Unmodified-Since")); err == nil && modified.After(t) {
		return errPrecondition.with("Condition", "If-Unmodified-Since")
	}
	if v := h.Get("If-None-Match"); v != "" {
		if etagListed(v, o.ETag) {
			return errNotModified
		}
	} else if t, err := http.ParseTime(h.Get("If-Modified-Since")); err == nil && !modified.After(t) {
		return errNotModified
	}
	return nil
}

func etagListed(list, etag string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.Trim(strings.TrimSpace(item), `"`); item == "*" || strings.EqualFold(item, etag) {
			return true
		}
	}
	return false
}

// parseRange reads a Range header as OSS does (help page 39571): it takes the first of several
// ranges, and the whole object for a range that is malformed or reaches outside, unless the
// request asks for the standard behaviour.
func parseRange(header string, size int64, standard bool) (first, length int64, partial bool, err error) {
	whole := func() (int64, int64, bool, error) {
		if standard && header != "" {
			return 0, 0, false, errInvalidRange.with("ActualObjectSize", size, "RangeRequested", header)
		}
		return 0, size, false, nil
	}
	list, ok := strings.CutPrefix(header, "bytes=")
	spec, _, several := strings.Cut(list, ",")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash || standard && several {
		return whole()
	}
	if from == "" {
		n, err := strconv.ParseInt(to, 10, 64)
		if err != nil || n <= 0 || size == 0 || !standard && n > size {
			return whole()
		}
		n = min(n, size)
		return size - n, n, true, nil
	}
	a, err := strconv.ParseInt(from, 10, 64)
	if err != nil || a < 0 || a >= size {
		return whole()
	}
	b := size - 1
	if to != "" {
		n, err := strconv.ParseInt(to, 10, 64)
		if err != nil || n < a || !standard && n >= size {
			return whole()
		}
		b = min(n, size-1)
	}
	return a, b - a + 1, true, nil
}

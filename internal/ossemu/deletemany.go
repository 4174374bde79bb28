package ossemu

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
)

// Limits of one DeleteMultipleObjects.
const (
	maxDeleted       = 1000
	maxDeleteRequest = 2 << 20 // bytes of XML
)

// remove removes an object, if there is one, and notifies.
func (s *Server) remove(c *call, key, operation string) error {
	o, err := s.store.delete(c.bucket, key)
	if o == nil || err != nil {
		return err
	}
	s.notify(c, happening{name: "ObjectRemoved:" + operation, at: s.cfg.Now(), o: o, delta: -o.Content.Size}, s.faults.get())
	return nil
}

// deleteObjects is DeleteMultipleObjects. A missing object is not an error.
func (s *Server) deleteObjects(c *call) error {
	encode, err := encoder(c.query)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxDeleteRequest+1))
	if err != nil {
		return receiveError(err)
	}
	sum := md5.Sum(body)
	if err := checkMD5(c.r.Header.Get("Content-MD5"), base64.StdEncoding.EncodeToString(sum[:])); err != nil {
		return err
	}
	var list struct {
		XMLName xml.Name `xml:"Delete"`
		Quiet   bool
		Object  []struct{ Key, VersionId string }
	}
	if len(body) > maxDeleteRequest || xml.Unmarshal(hideInDocument(body), &list) != nil {
		return errMalformedXML
	}
	if len(list.Object) == 0 || len(list.Object) > maxDeleted {
		return errMalformedXML
	}
	type deleted struct {
		Key       string
		VersionId string `xml:",omitempty"`
	}
	result := struct {
		XMLName      xml.Name `xml:"DeleteResult"`
		EncodingType string   `xml:",omitempty"`
		Deleted      []deleted
	}{EncodingType: c.query["encoding-type"]}
	for _, o := range list.Object {
		if o.VersionId != "" && o.VersionId != nullVersion {
			return errNotImplemented.with("Header", "VersionId")
		}
		key := unhideControls(o.Key)
		if err := checkKey(key); err != nil {
			return err
		}
		result.Deleted = append(result.Deleted, deleted{encode(key), o.VersionId})
	}
	for _, o := range list.Object {
		if err := s.remove(c, unhideControls(o.Key), "DeleteObjects"); err != nil {
			return err
		}
	}
	if list.Quiet {
		return c.writeNothing(http.StatusOK)
	}
	return c.writeXML(http.StatusOK, result)
}

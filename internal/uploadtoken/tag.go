package uploadtoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// What the HMACs of each version begin with, so that no part of one passes as one of
// another.
const (
	domain1 = "upcall upload token 1"
	domain2 = "upcall upload token 2"
)

// work is what the tags of one token need: an HMAC under the secret, and buffers. It is
// pooled, because setting an HMAC up costs more than using it.
type work struct {
	mac    hash.Hash
	input  []byte
	common int // bytes of input that all tags of the token begin with
	sum    []byte
}

func newWork(secret string) *work { return &work{mac: hmac.New(sha256.New, []byte(secret))} }

// work begins the tags of one token with what all of them cover: a domain, the key id
// and the token's head. The caller returns it to k.works.
func (k *key) work(domain string, head []byte) *work {
	w := k.works.Get().(*work)
	w.input = appendPart(w.input[:0], domain)
	w.input = appendPart(w.input, k.id)
	w.input = appendPart(w.input, head)
	w.common = len(w.input)
	return w
}

// start begins a tag, text and bytes add to what it covers, and end appends its first
// bytes to dst. Each part is preceded by its length, so that no two inputs look alike.
func (w *work) start(purpose string) *work {
	w.input = w.input[:w.common]
	return w.text(purpose)
}

func (w *work) text(part string) *work {
	w.input = appendPart(w.input, part)
	return w
}

func (w *work) bytes(part []byte) *work {
	w.input = appendPart(w.input, part)
	return w
}

func (w *work) end(dst []byte, size int) []byte {
	w.mac.Reset()
	w.mac.Write(w.input)
	w.sum = w.mac.Sum(w.sum[:0])
	return append(dst, w.sum[:size]...)
}

// keyPurpose is that of the tag over the object key, or over its beginning. They differ, because a person who may upload to
// the key photos/ must not be able to upload to photos/cat.jpg, nor the other way round.
func keyPurpose(prefix bool) string {
	if prefix {
		return "prefix"
	}
	return "key"
}

// whole appends the tag over all of a callback.
func (w *work) whole(dst []byte, prefix bool, bucket, object, media string, vars, rest, query []byte) []byte {
	purpose := "whole"
	if prefix {
		purpose = "whole prefix"
	}
	w.start(purpose).text(bucket).text(object).text(media)
	return w.bytes(vars).bytes(rest).bytes(query).end(dst, tagLen)
}

func appendPart[T string | []byte](dst []byte, part T) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
	return append(dst, part...)
}

package uploadtoken

import "crypto/hmac"

// A token of version 1 is
//
//	kid "." base64url( upload id [16] | expiry [5] | token tag [16] | bucket tag [16] | key tag [16] )
const (
	tagLen1  = 16
	blobLen1 = len(head{}) + 3*tagLen1
)

// check1 checks what follows the key id.
func (k *key) check1(encoded string, c Callback) (start head, err error) {
	if len(encoded) != encoding.EncodedLen(blobLen1) {
		return start, ErrForged
	}
	var blob [blobLen1]byte
	if n, err := encoding.Decode(blob[:], []byte(encoded)); err != nil || n != blobLen1 {
		return start, ErrForged
	}
	tags := blob[copy(start[:], blob[:]):]
	w := k.work(domain1, start[:])
	defer k.works.Put(w)
	var room [tagLen1]byte
	want := room[:0]
	switch {
	case !hmac.Equal(tags[:tagLen1], w.start("token").end(want, tagLen1)):
		return start, ErrForged
	case c.Bucket != "" && !hmac.Equal(tags[tagLen1:2*tagLen1], w.start("bucket").text(c.Bucket).end(want, tagLen1)):
		return start, ErrForeignBucket
	case c.Object != "" && !hmac.Equal(tags[2*tagLen1:], w.start("key").text(c.Object).end(want, tagLen1)):
		return start, ErrForeignKey
	case c.Notified:
		return start, errUnproven
	}
	return start, nil
}

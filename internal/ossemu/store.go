package ossemu

import (
	"cmp"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A backend keeps the bytes of blobs, and records that outlive the process if it
// does. There are two, as the contract asks: in memory and under a directory. Names
// are digests or random ids, never anything from a request.
type backend interface {
	create() (blobWriter, error)
	open(blob string) (io.ReadSeekCloser, error)
	remove(blob string) error
	saveRecord(name string, v any) error
	removeRecord(name string) error
	// load calls each for every record, then forgets blobs for which keep is false.
	load(each func(name string, data []byte) error, keep func(blob string) bool) error
}

// A blobWriter takes the bytes of a new blob, which nobody sees before commit.
type blobWriter interface {
	io.Writer
	commit() (blob string, err error)
	discard()
}

// content describes received bytes.
type content struct {
	Blob  string
	Size  int64
	MD5   []byte
	CRC64 uint64
}

func (c content) contentMD5() string { return base64.StdEncoding.EncodeToString(c.MD5) }

// etag is OSS's for whole objects and parts: the MD5 in upper-case hex.
func (c content) etag() string { return strings.ToUpper(hex.EncodeToString(c.MD5)) }

// metadata is what an upload says about its object, apart from the bytes.
type metadata struct {
	ContentType  string
	Headers      map[string]string // given back by GetObject: lower-case names
	StorageClass string
	ACL          string // "" means that the bucket's holds
	Tagging      string
	Encryption   encryption
}

// encryption is the server-side encryption that an upload asks for. Blobs are not encrypted.
type encryption struct {
	Algorithm     string // AES256, KMS, SM4, or "" for none
	KeyID         string // of KMS
	DataAlgorithm string // SM4 under KMS, or ""
}

type object struct {
	Bucket, Key  string
	Content      content
	ETag         string // upper case, without quotes
	Type         string // Normal or Multipart
	WholeMD5     bool   // Content-MD5 is known, unlike that of parts in any order
	LastModified time.Time
	Meta         metadata

	delta int64 // by how much it made its bucket grow, in bytes
}

// store is the index of all objects and uploads over a backend. The index is in
// memory; records only rebuild it at the start.
type store struct {
	backend backend

	mu      sync.RWMutex
	buckets map[string]*bucket
	uploads map[string]*upload
}

// openStore loads what the backend has. A bucket that is configured or has objects
// exists, whether there is a record of it or not.
func openStore(b backend, buckets []string, now time.Time) (*store, error) {
	s := &store{backend: b, buckets: make(map[string]*bucket), uploads: make(map[string]*upload)}
	have := func(name string) *bucket {
		if s.buckets[name] == nil {
			s.buckets[name] = newBucket(name, now)
		}
		return s.buckets[name]
	}
	for _, name := range buckets {
		have(name)
	}
	var parts []*part
	blobs := make(map[string]bool)
	err := b.load(func(name string, data []byte) error {
		var err error
		switch {
		case strings.HasPrefix(name, "object-"):
			o := new(object)
			if err = json.Unmarshal(data, o); err == nil {
				// Records of earlier versions lack the field.
				o.WholeMD5 = o.WholeMD5 || o.Type == normalObject
				have(o.Bucket).objects[o.Key] = o
				blobs[o.Content.Blob] = true
			}
		case strings.HasPrefix(name, "bucket-"):
			var settings bucketSettings
			if err = json.Unmarshal(data, &settings); err == nil {
				have(settings.Name).bucketSettings = settings
			}
		case strings.HasPrefix(name, "upload-"):
			u := &upload{parts: make(map[int]*part)}
			if err = json.Unmarshal(data, u); err == nil {
				s.uploads[u.ID] = u
			}
		case strings.HasPrefix(name, "part-"):
			p := new(part)
			if err = json.Unmarshal(data, p); err == nil {
				parts = append(parts, p)
				blobs[p.Content.Blob] = true
			}
		}
		if err != nil {
			return fmt.Errorf("read record %s: %w", name, err)
		}
		return nil
	}, func(blob string) bool { return blobs[blob] })
	for _, p := range parts {
		if u := s.uploads[p.UploadID]; u != nil {
			u.parts[p.Number] = p
		}
	}
	return s, err
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// errTooLarge is [store.receive]'s error for more bytes than were allowed.
var errTooLarge = errors.New("content is larger than allowed")

// receive stores bytes as a new blob, at most limit of them. The caller that gets the content
// must put it into an object or part, or remove its blob.
func (s *store) receive(r io.Reader, limit int64) (content, error) {
	w, err := s.backend.create()
	if err != nil {
		return content{}, fmt.Errorf("create blob: %w", err)
	}
	sum, crc := md5.New(), crc64.New(crcTable)
	n, err := io.Copy(io.MultiWriter(w, sum, crc), io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = errTooLarge
	}
	if err != nil {
		w.discard()
		return content{}, err
	}
	blob, err := w.commit()
	if err != nil {
		return content{}, fmt.Errorf("commit blob: %w", err)
	}
	return content{Blob: blob, Size: n, MD5: sum.Sum(nil), CRC64: crc.Sum64()}, nil
}

func objectRecord(bucket, key string) string {
	sum := sha256.Sum256([]byte(bucket + "\x00" + key))
	return "object-" + hex.EncodeToString(sum[:])
}

// put makes an object visible, atomically, and drops the one it replaces. On an error
// the new content is dropped instead.
func (s *store) put(o *object, forbidOverwrite bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[o.Bucket]
	if b == nil { // deleted while the bytes were on their way
		return errors.Join(errNoSuchBucket.with("BucketName", o.Bucket), s.backend.remove(o.Content.Blob))
	}
	old := b.objects[o.Key]
	if old != nil && forbidOverwrite {
		return errors.Join(errFileAlreadyExists, s.backend.remove(o.Content.Blob))
	}
	if err := s.backend.saveRecord(objectRecord(o.Bucket, o.Key), o); err != nil {
		return errors.Join(fmt.Errorf("save object: %w", err), s.backend.remove(o.Content.Blob))
	}
	o.delta = o.Content.Size
	b.objects[o.Key] = o
	if old != nil {
		o.delta -= old.Content.Size
		return s.backend.remove(old.Content.Blob)
	}
	return nil
}

// get returns an object, or errNoSuchKey.
func (s *store) get(bucket, key string) (*object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.find(bucket, key)
}

// find is get under the lock.
func (s *store) find(bucket, key string) (*object, error) {
	if b := s.buckets[bucket]; b != nil && b.objects[key] != nil {
		return b.objects[key], nil
	}
	return nil, errNoSuchKey.with("Key", key)
}

// open returns an object with its bytes, which stay readable while it is replaced.
func (s *store) open(bucket, key string) (*object, io.ReadSeekCloser, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, err := s.find(bucket, key)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.backend.open(o.Content.Blob)
	if err != nil {
		return nil, nil, fmt.Errorf("open blob: %w", err)
	}
	return o, r, nil
}

// delete removes an object and returns it; as with OSS it is no error if there is none.
func (s *store) delete(bucket, key string) (*object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(bucket, key)
	if err != nil {
		return nil, nil
	}
	if err := s.backend.removeRecord(objectRecord(bucket, key)); err != nil {
		return nil, fmt.Errorf("remove object: %w", err)
	}
	delete(s.buckets[bucket].objects, key)
	return o, s.backend.remove(o.Content.Blob)
}

// reset removes all objects and open multipart uploads, and returns how many there were.
func (s *store) reset() (objects, uploads int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, b := range s.buckets {
		for key, o := range b.objects {
			errs = append(errs, s.backend.removeRecord(objectRecord(b.Name, key)), s.backend.remove(o.Content.Blob))
			objects++
		}
		clear(b.objects)
	}
	for _, u := range s.uploads {
		if !u.completing { // it is about to be an object
			errs = append(errs, s.remove(u))
			uploads++
		}
	}
	return objects, uploads, errors.Join(errs...)
}

// setACL changes an object's ACL. Readers may hold the object, so it is replaced.
func (s *store) setACL(bucket, key, acl string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.find(bucket, key)
	if err != nil {
		return err
	}
	o := *old
	o.Meta.ACL = acl
	if err := s.backend.saveRecord(objectRecord(bucket, key), &o); err != nil {
		return fmt.Errorf("save object: %w", err)
	}
	s.buckets[bucket].objects[key] = &o
	return nil
}

// list returns the objects of a bucket whose keys start with prefix and sort after
// after, in the order of their keys.
func (s *store) list(bucket, prefix, after string) []*object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []*object
	if s.buckets[bucket] == nil {
		return nil
	}
	for key, o := range s.buckets[bucket].objects {
		if strings.HasPrefix(key, prefix) && key > after {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(a, b *object) int { return cmp.Compare(a.Key, b.Key) })
	return found
}

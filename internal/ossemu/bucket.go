package ossemu

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// bucketSettings describe a bucket, apart from its objects. Its record holds them.
type bucketSettings struct {
	Name          string
	Created       time.Time
	ACL           string // private, public-read or public-read-write
	StorageClass  string
	Redundancy    string // LRS or ZRS
	ResourceGroup string

	// BlockPublicAccess is nil until it is set. Like OSS, the emulator says that new buckets
	// block public access, but it blocks it only once it is set, because programs older than
	// the setting (2025) make objects public without switching it off.
	BlockPublicAccess *bool `json:",omitempty"`
}

func (b bucketSettings) blocksPublic() bool {
	return b.BlockPublicAccess != nil && *b.BlockPublicAccess
}

type bucket struct {
	bucketSettings
	objects map[string]*object
}

const (
	aclPrivate         = "private"
	aclPublicRead      = "public-read"
	aclPublicReadWrite = "public-read-write"
	aclDefault         = "default" // of objects: as the bucket's
)

func newBucket(name string, now time.Time) *bucket {
	return &bucket{
		bucketSettings{
			Name: name, Created: now.UTC(), ACL: aclPrivate,
			StorageClass: "Standard", Redundancy: "LRS", ResourceGroup: "rg-ossemu",
		},
		make(map[string]*object),
	}
}

func bucketRecord(name string) string { return "bucket-" + name }

func (s *store) hasBucket(name string) bool {
	_, err := s.bucket(name)
	return err == nil
}

// bucket returns the settings of a bucket, or errNoSuchBucket.
func (s *store) bucket(name string) (bucketSettings, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if b := s.buckets[name]; b != nil {
		return b.bucketSettings, nil
	}
	return bucketSettings{}, errNoSuchBucket.with("BucketName", name)
}

// setBucket changes the settings of a bucket, which it makes if there is none.
func (s *store) setBucket(name string, now time.Time, change func(*bucketSettings)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[name]
	if b == nil {
		b = newBucket(name, now)
	}
	settings := b.bucketSettings
	change(&settings)
	if err := s.backend.saveRecord(bucketRecord(name), settings); err != nil {
		return fmt.Errorf("save bucket: %w", err)
	}
	b.bucketSettings = settings
	s.buckets[name] = b
	return nil
}

// deleteBucket removes a bucket that has neither objects nor uploads.
func (s *store) deleteBucket(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[name]
	if b == nil {
		return errNoSuchBucket.with("BucketName", name)
	}
	if len(b.objects) > 0 {
		return errBucketNotEmpty.with("BucketName", name)
	}
	for _, u := range s.uploads {
		if u.Bucket == name {
			return errBucketNotEmpty.saying("The bucket has multipart uploads. Please abort them first.", "").with("BucketName", name)
		}
	}
	if err := s.backend.removeRecord(bucketRecord(name)); err != nil {
		return fmt.Errorf("remove bucket: %w", err)
	}
	delete(s.buckets, name)
	return nil
}

// listBuckets returns the settings of all buckets, by name.
func (s *store) listBuckets() []bucketSettings {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []bucketSettings
	for _, b := range s.buckets {
		found = append(found, b.bucketSettings)
	}
	slices.SortFunc(found, func(a, b bucketSettings) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

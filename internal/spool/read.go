package spool

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"time"

	"upcall/internal/kept"

	bolt "go.etcd.io/bbolt"
)

// readFile calls visit for each record of a file: those that wait, in order, then the dead
// letters. An error that is not from visit wraps ErrDamaged.
func readFile(path string, visit func(kept.Head, []byte) error) error {
	if err := checkMeta(path); err != nil {
		return err
	}
	return guard(func() error {
		db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second, PageSize: pageSize})
		if err != nil {
			return err
		}
		defer db.Close()
		return db.View(func(tx *bolt.Tx) error {
			for _, name := range [][]byte{queuedBucket, deadBucket} {
				if err := readBucket(tx, name, visit); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func readBucket(tx *bolt.Tx, name []byte, visit func(kept.Head, []byte) error) error {
	bucket := tx.Bucket(name)
	if bucket == nil || tx.Bucket(countsBucket) == nil {
		return fmt.Errorf("%w: bucket %s is missing", ErrDamaged, name)
	}
	var last []byte
	n := 0
	cursor := bucket.Cursor()
	for key, frame := cursor.First(); key != nil; key, frame = cursor.Next() {
		h, err := kept.Check(frame)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if n > 0 && bytes.Compare(key, last) <= 0 || !isKey(key, h) {
			return fmt.Errorf("%w: a key is wrong, or out of order", ErrDamaged)
		}
		if err := visit(h, frame); err != nil {
			return err
		}
		last = key
		n++
	}
	if want := count(tx, name); n != want {
		return fmt.Errorf("%w: bucket %s holds %d records but should hold %d", ErrDamaged, name, n, want)
	}
	return nil
}

// isKey reports whether a key can be that of the record. If bbolt misreads the length of the
// key, it finds a different record, which can be a valid one.
func isKey(key []byte, h kept.Head) bool {
	if h.Dead {
		return bytes.Equal(key, h.ID[:])
	}
	return len(key) == 8
}

// guard turns a panic or a fault in the mapped file into ErrDamaged, because bbolt checks
// little of what it reads.
func guard(work func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return work()
}

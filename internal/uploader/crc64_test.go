package uploader

import (
	"hash/crc64"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
)

func FuzzCombineCRC(f *testing.F) {
	f.Add([]byte{}, []byte{}, int64(0))
	f.Add([]byte("123456789"), []byte{}, int64(1))
	f.Add([]byte{}, []byte("123456789"), int64(5<<30))
	f.Add([]byte("1234"), []byte("56789"), int64(1<<62))
	f.Fuzz(func(t *testing.T, a, b []byte, size int64) {
		sum := func(p []byte) uint64 { return crc64.Checksum(p, crcTable) }
		both := sum(append(a[:len(a):len(a)], b...))
		if got := combineCRC(sum(a), sum(b), int64(len(b))); got != both {
			t.Errorf("%x and %x make %d, want %d", a, b, got, both)
		}
		// For sizes too large to compute in a test, the SDK's result counts.
		if size = max(size, 0); size > 0 {
			if got, want := combineCRC(both, sum(b), size), sdk.CRC64Combine(both, sum(b), uint64(size)); got != want {
				t.Errorf("%d bytes: %d, want %d", size, got, want)
			}
		}
	})
}

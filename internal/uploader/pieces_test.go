package uploader_test

import (
	"errors"
	"testing"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/uploader"
)

// TestBadManifest checks that nothing is sent with a bad manifest.
func TestBadManifest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elsewhere, host, notOne := w.multipart(3*partSize), w.put(), w.multipart(3*partSize)
	elsewhere.Multipart.Parts[2].URL = "http://evil.example.com/"
	host.Put.Headers["host"] = "evil.example.com"
	notOne.Put = host.Put
	w.gate.Open()
	for _, m := range []manifest.Manifest{{}, elsewhere, host, notOne} {
		_, source := fileOf(t, nil)
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: m, Watcher: new(log)})
		if !errors.Is(err, manifest.ErrManifest) || len(w.gate.Seen()) != 0 {
			t.Errorf("error %v, %d requests", err, len(w.gate.Seen()))
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	number := func(n int64) *int64 { return &n }
	multipart := func(change func(m *manifest.Multipart)) manifest.Manifest {
		m := w.multipart(2*partSize + 5)
		change(m.Multipart)
		return m
	}
	unsigned := func(m *manifest.Multipart) {
		for i := range m.Parts {
			m.Parts[i].Headers = nil
		}
	}
	tests := []struct {
		name string
		m    manifest.Manifest
		size int
		fits bool
	}{
		{"any size", w.put(), 5, true},
		{"the signed size", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 5, true},
		{"a byte less", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 4, false},
		{"a byte more", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 6, false},
		{"an empty file", w.put(func(r *issue.Request) { r.ContentLength = number(5) }), 0, false},
		{"not empty", w.put(func(r *issue.Request) { r.ContentLength = number(0) }), 1, false},

		{"multipart", multipart(func(*manifest.Multipart) {}), 2*partSize + 5, true},
		{"multipart, a byte less", multipart(func(*manifest.Multipart) {}), 2*partSize + 4, false},
		{"multipart, a byte more", multipart(func(*manifest.Multipart) {}), 2*partSize + 6, false},
		{"multipart, empty file", multipart(func(*manifest.Multipart) {}), 0, false},
		{"parts are fewer than the size", multipart(func(m *manifest.Multipart) { m.Parts = m.Parts[:2] }), 2*partSize + 5, false},
		{"parts are more than the size", multipart(func(m *manifest.Multipart) { m.Size = number(partSize) }), partSize, false},
		{"a part of another size", multipart(func(m *manifest.Multipart) { m.Parts[1].Size = number(5) }), 2*partSize + 5, false},
		{"an empty part", multipart(func(m *manifest.Multipart) { unsigned(m); m.Parts[1].Size = number(0) }), 2*partSize + 5, false},
		{"a part of negative size", multipart(func(m *manifest.Multipart) {
			unsigned(m)
			m.Parts[0].Size, m.Parts[1].Size = number(3*partSize), number(-partSize)
		}), 2*partSize + 5, false},
		{"sizes that overflow", multipart(func(m *manifest.Multipart) {
			unsigned(m)
			m.Parts[0].Size, m.Parts[1].Size, m.Parts[2].Size = number(1<<63-1), number(1<<63-1), number(2*partSize+7)
		}), 2*partSize + 5, false},
		{"sizes in another order than they are signed", multipart(func(m *manifest.Multipart) {
			m.Parts[0].Size, m.Parts[2].Size = m.Parts[2].Size, m.Parts[0].Size
		}), 2*partSize + 5, false},
	}
	for _, tt := range tests {
		if err := uploader.Fit(tt.m, int64(tt.size)); (err == nil) != tt.fits || err != nil && !errors.Is(err, uploader.ErrSize) {
			t.Errorf("%s: error %v", tt.name, err)
		}
		if tt.fits {
			continue
		}
		_, source := fileOf(t, someBytes(tt.size))
		w.gate.Open()
		_, err := newUploader(t).Upload(t.Context(), uploader.Task{Source: source, Manifest: tt.m, Watcher: new(log)})
		if !errors.Is(err, uploader.ErrSize) || len(w.gate.Seen()) != 0 {
			t.Errorf("%s: %d requests, error %v", tt.name, len(w.gate.Seen()), err)
		}
	}
}

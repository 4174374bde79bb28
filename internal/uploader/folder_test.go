package uploader_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"upcall/internal/uploader"
)

// tree makes files, each as long as its name, in a new folder.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// walked describes what Walk finds.
func walked(root string, follow bool) []string {
	var got []string
	uploader.Walk(root, follow, func(f uploader.Found) {
		text := fmt.Sprintf("%s %d", f.Name, f.Size)
		for _, is := range []error{uploader.ErrLink, uploader.ErrLoop, uploader.ErrNotFile, fs.ErrNotExist, fs.ErrPermission} {
			if errors.Is(f.Err, is) {
				text = fmt.Sprintf("%s: %v", f.Name, is)
			}
		}
		got = append(got, text)
	})
	return got
}

func TestWalk(t *testing.T) {
	t.Parallel()
	outside := tree(t, "secret")
	root := tree(t, "b/2", "b/1/x", "a", ".hidden", "猫 \xff")
	for name, target := range map[string]string{
		"link": "a", "link-out": filepath.Join(outside, "secret"), "z/dir-out": outside, "z/up": "..", "z/self": ".", "dangling": "nowhere",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(root, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()

	link, loop, not := uploader.ErrLink.Error(), uploader.ErrLoop.Error(), uploader.ErrNotFile.Error()
	want := []string{".hidden 7", "a 1", "b/1/x 5", "b/2 3", "dangling: " + link, "link: " + link, "link-out: " + link,
		"sock: " + not, "z/dir-out: " + link, "z/self: " + link, "z/up: " + link, "猫 \xff 5"}
	if got := walked(root, false); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	want = []string{".hidden 7", "a 1", "b/1/x 5", "b/2 3", "dangling: " + fs.ErrNotExist.Error(), "link 1", "link-out 6",
		"sock: " + not, "z/dir-out/secret 6", "z/self: " + loop, "z/up: " + loop, "猫 \xff 5"}
	if got := walked(root, true); !slices.Equal(got, want) {
		t.Errorf("followed: got  %q\nwant %q", got, want)
	}
	if got, want := walked(filepath.Join(root, "none"), false), []string{": " + fs.ErrNotExist.Error()}; !slices.Equal(got, want) {
		t.Errorf("no folder: got %q, want %q", got, want)
	}
}

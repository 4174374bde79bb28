package embeddedpg

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// runAs is the user that the server runs as.
type runAs struct {
	name     string
	uid, gid uint32
	switched bool // not the owner's user
}

// serverUser returns the user of this process. For root, whom PostgreSQL does not accept, it
// returns another user.
func serverUser() (runAs, error) {
	if os.Geteuid() != 0 {
		return runAs{name: "of this process", uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseInt(account.Uid, 10, 64)
		gid, errGID := strconv.ParseInt(account.Gid, 10, 64)
		if errUID != nil || errGID != nil || uid == 0 {
			continue
		}
		// nobody is -2 on macOS.
		return runAs{name: name, uid: uint32(uid), gid: uint32(gid), switched: true}, nil
	}
	return runAs{}, errors.New("find a user for PostgreSQL, which refuses to run as root: " +
		"neither postgres nor nobody exists: run as another user, or add one of these two")
}

// credential is what a child process switches to, without root's other groups. nil means
// that it does not switch.
func (u runAs) credential() *syscall.Credential {
	if !u.switched {
		return nil
	}
	return &syscall.Credential{Uid: u.uid, Gid: u.gid}
}

// own gives a file or directory to the user.
func (u runAs) own(path string) error {
	if !u.switched {
		return nil
	}
	if err := os.Chown(path, int(u.uid), int(u.gid)); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, u.name, err)
	}
	return nil
}

// dirMode is the mode of a new data directory, which the user must be able to enter.
func (u runAs) dirMode() os.FileMode {
	if u.switched {
		return 0o711
	}
	return 0o700
}

// canEnter reports whether the user can reach path, as far as it exists. It checks the
// permission bits of each directory on the way, and follows links.
func (u runAs) canEnter(path string) bool {
	if !u.switched {
		return true
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir && !u.canEnter(real) {
			return false
		}
		if info, err := os.Stat(dir); err == nil && !u.permits(info) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// permits reports whether the user may enter this directory or execute this file.
func (u runAs) permits(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case stat.Uid == u.uid:
		return mode&0o100 != 0
	case stat.Gid == u.gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

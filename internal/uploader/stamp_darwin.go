package uploader

import (
	"io/fs"
	"syscall"
)

// changeTime returns when the file or what is known about it last changed, in nanoseconds.
// Unlike the modification time, no program sets it.
func changeTime(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ctimespec.Nano()
	}
	return 0
}

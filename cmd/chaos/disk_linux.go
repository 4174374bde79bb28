package main

import (
	"fmt"
	"syscall"
)

// mountDisk mounts a small disk on a directory. Only root may; the error says so.
func mountDisk(dir string, size int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
}

func unmountDisk(dir string) error { return syscall.Unmount(dir, 0) }

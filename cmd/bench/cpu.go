package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"upcall/internal/embeddedpg"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on Linux, whatever the kernel's
// own clock (proc(5)).
const tick = 10 * time.Millisecond

// postgresCPU returns the CPU time that PostgreSQL has used: the postmaster, the processes
// that it has reaped, and its present ones. It is 0 without /proc.
func postgresCPU(server *embeddedpg.Server) (time.Duration, error) {
	var total time.Duration
	err := eachPostgres(server, func(_ int, used time.Duration) { total += used })
	return total, err
}

// eachPostgres visits the processes of PostgreSQL.
func eachPostgres(server *embeddedpg.Server, visit func(pid int, used time.Duration)) error {
	file, err := os.ReadFile(filepath.Join(server.DataDir(), "pgdata", "postmaster.pid"))
	if err != nil {
		return fmt.Errorf("find PostgreSQL: %w", err)
	}
	postmaster, _, _ := strings.Cut(string(file), "\n")
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return fmt.Errorf("read CPU times: %w", err)
	}
	for _, path := range stats {
		name := filepath.Base(filepath.Dir(path))
		parent, used, err := readStat(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the process has ended
		}
		if err != nil {
			return err
		}
		if name == postmaster || parent == postmaster {
			pid, _ := strconv.Atoi(name) // the pattern matches only numbers
			visit(pid, used)
		}
	}
	return nil
}

// processCPU returns the CPU time that a process has used. It is 0 without /proc.
func processCPU(pid int) (time.Duration, error) {
	_, used, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return used, err
}

// exactCPU returns the CPU time that processes have used, to the nanosecond: that of their
// threads. It is 0 without /proc.
func exactCPU(pids ...int) (total time.Duration, err error) {
	for _, pid := range pids {
		paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, fmt.Errorf("read CPU times: %w", err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // the thread has ended
			}
			used, _, _ := strings.Cut(string(text), " ")
			nanoseconds, wrong := strconv.ParseInt(used, 10, 64)
			if err := errors.Join(err, wrong); err != nil {
				return 0, fmt.Errorf("read CPU times: %w", err)
			}
			total += time.Duration(nanoseconds)
		}
	}
	return total, nil
}

// readStat returns a process's parent, and the CPU time of the process and of the children
// that it has reaped.
func readStat(path string) (string, time.Duration, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", 0, fmt.Errorf("read CPU times: %w", err)
	}
	// The name is in brackets and may hold anything; the fields after it are numbers.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const parent, utime, cstime = 1, 11, 14 // counted from the state
	if len(fields) <= cstime {
		return "", 0, fmt.Errorf("read CPU times: %s has %d fields", path, len(fields))
	}
	var used time.Duration
	for _, field := range fields[utime : cstime+1] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return "", 0, fmt.Errorf("read CPU times: %w", err)
		}
		used += time.Duration(ticks) * tick
	}
	return fields[parent], used, nil
}

// peakMemory returns a process's peak resident memory, in bytes: VmHWM (proc(5)). It is 0
// without /proc.
func peakMemory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read peak memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kilobytes); n == 1 {
			return kilobytes * 1024, nil
		}
	}
	return 0, errors.New("read peak memory: there is no VmHWM")
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"upcall/internal/embeddedpg"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on Linux, whatever the kernel's
// own clock (proc(5)).
const tick = 10 * time.Millisecond

// postgresCPU returns the CPU time that PostgreSQL has used: the postmaster's, that of
// the processes it has reaped, and that of those it has now. It is 0 without /proc.
func postgresCPU(server *embeddedpg.Server) (time.Duration, error) {
	file, err := os.ReadFile(filepath.Join(server.DataDir(), "pgdata", "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("find PostgreSQL: %w", err)
	}
	postmaster, _, _ := strings.Cut(string(file), "\n")
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("read CPU times: %w", err)
	}
	var total time.Duration
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		pid, rest, _ := strings.Cut(string(text), " ")
		// The name is in brackets and may hold anything; the fields after it are numbers.
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		const parent, utime, cstime = 1, 11, 14 // counted from the state
		if len(fields) <= cstime || pid != postmaster && fields[parent] != postmaster {
			continue
		}
		for _, field := range fields[utime : cstime+1] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read CPU times: %w", err)
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}

package process

import (
	"fmt"
	"testing"
	"time"
)

// Usage is what a process holds and has used.
type Usage struct {
	goroutines, descriptors, threads int
	heap, rss                        int // KiB
	cpu                              time.Duration
}

func (u Usage) String() string {
	return fmt.Sprintf("goroutines %d, descriptors %d, threads %d, heap %d KiB, RSS %d KiB, CPU %v",
		u.goroutines, u.descriptors, u.threads, u.heap, u.rss, u.cpu.Round(10*time.Millisecond))
}

// Usage counts.
func (d *Process) Usage() Usage {
	d.Helper()
	m := d.Metrics()
	return Usage{
		goroutines: int(m["go_goroutines"]), threads: int(m["go_threads"]),
		descriptors: int(m["process_open_fds"]),
		heap:        int(m["go_memstats_heap_inuse_bytes"]) >> 10, rss: int(m["process_resident_memory_bytes"]) >> 10,
		cpu: time.Duration(m["process_cpu_seconds_total"] * float64(time.Second)),
	}
}

// ExpectNoMore expects a process at rest to hold what it held at an earlier
// rest. The heap of a Go program is as large as its collector lets it grow, so
// that some growth says nothing.
func (u Usage) ExpectNoMore(t *testing.T, before Usage) {
	t.Helper()
	// A connection of ours may be closing.
	const few, spare = 2, 16 << 10
	if u.goroutines > before.goroutines+few || u.descriptors > before.descriptors+few {
		t.Errorf("a leak: %v, and before: %v", u, before)
	}
	if u.rss > before.rss+before.rss/4+spare {
		t.Errorf("memory grows: %v, and before: %v", u, before)
	}
}

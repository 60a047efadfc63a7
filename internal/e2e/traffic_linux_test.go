package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
)

// traffic is a stream of pings, one every two milliseconds unless it says
// otherwise.
type traffic struct {
	name    string
	answers *atomic.Int64
	more    chan struct{} // wakes who waits for answers
	stop    func() (sent, received int)
}

// flow waits until so many more answers have come.
func (f traffic) flow(t *testing.T, more int64) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for want := f.answers.Load() + more; f.answers.Load() < want; {
		select {
		case <-f.more:
		case <-timeout:
			t.Fatalf("%s: no more answers", f.name)
		}
	}
}

// ping starts a stream from a pod and returns when the first answer is in.
func (n *network) ping(from, to string) traffic {
	n.t.Helper()
	return n.pingFrom(n.lab.Pod(from), from, to)
}

// pingFrom is ping from any namespace, a node's for one.
func (n *network) pingFrom(ns *lab.Namespace, from, to string) traffic {
	n.t.Helper()
	return n.pingEvery("0.002", ns, from, to)
}

// pingEvery is pingFrom with another interval, in seconds.
func (n *network) pingEvery(interval string, ns *lab.Namespace, from, to string) traffic {
	n.t.Helper()
	r, w := io.Pipe()
	cmd := ns.Command(context.Background(), "ping", "-n", "-i", interval, to)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	answers, more := &atomic.Int64{}, make(chan struct{}, 1)
	done := make(chan [2]int, 1)
	go func() {
		var counts [2]int
		for s := bufio.NewScanner(r); s.Scan(); {
			if strings.Contains(s.Text(), "bytes from") {
				answers.Add(1)
				select {
				case more <- struct{}{}:
				default: // it is awake already
				}
			}
			if m := summary.FindStringSubmatch(s.Text()); m != nil {
				_, _ = fmt.Sscan(m[1], &counts[0])
				_, _ = fmt.Sscan(m[2], &counts[1])
			}
		}
		done <- counts
	}()
	f := traffic{from + " to " + to, answers, more, func() (int, int) {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait() // exits with 1 if anything was lost
		_ = w.Close()
		counts := <-done
		return counts[0], counts[1]
	}}
	f.flow(n.t, 1)
	return f
}

var summary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// settle waits until duplicate address detection is over, as it is on a node
// that has been up for a while.
func (n *network) settle(node string) {
	n.t.Helper()
	for strings.TrimSpace(n.sh(node, "ip -6 addr show tentative")) != "" {
		runtime.Gosched()
	}
}

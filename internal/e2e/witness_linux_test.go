package e2e

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/poldernet/polder/reconcile"
)

// witness follows a monitor program on a node.
type witness struct {
	lines  <-chan string
	cancel context.CancelFunc
}

// watch starts ip monitor or nft monitor on a node.
func (n *network) watch(node string, argv ...string) *witness {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	cmd := n.lab.Node(node).Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	lines := make(chan string, 10000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	n.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed, which is how it ends
		_ = w.Close()
	})
	return &witness{lines, cancel}
}

// until collects what the witness says before the word.
func (w *witness) until(t *testing.T, word string) []string {
	t.Helper()
	var seen []string
	for line := range w.lines {
		if strings.Contains(line, word) {
			return seen
		}
		seen = append(seen, line)
	}
	t.Fatalf("the witness ended before it saw %q; it said %q", word, seen)
	return nil
}

// sentinel repeats a command until the witness has heard of it: what it says
// from then on is complete.
func (n *network) sentinel(node string, w *witness, word, command string) {
	n.t.Helper()
	for {
		n.sh(node, command)
		select {
		case line := <-w.lines:
			if strings.Contains(line, word) {
				return
			}
		default:
		}
	}
}

// TestNothingIsWritten: neither a plan nor an apply of nothing writes, on the
// word of the kernel's own notifications, of nftables' generation, and of a
// comparison of everything before and after.
func TestNothingIsWritten(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			n := up(t, cluster{backend: b.block, pods: dual, oneLink: b.oneLink})
			quiet := func(what string, do func()) {
				t.Helper()
				// What the kernel has still to say of what was done before.
				n.carried("n1")
				n.settled("n1")
				ip := n.watch("n1", "ip", "-o", "monitor", "link", "address", "route", "nexthop", "neigh")
				nft := n.watch("n1", "nft", "monitor")
				n.sentinel("n1", ip, "begin0", "ip link add begin0 type veth peer name begin1; ip link del begin0")
				n.sentinel("n1", nft, "begin", "nft add table ip begin; nft delete table ip begin")
				before, generation := n.snapshot("n1"), n.generation()
				do()
				if now := n.generation(); now != generation {
					t.Errorf("%s: nftables went from generation %d to %d", what, generation, now)
				}
				after := n.snapshot("n1")
				n.sh("n1", "ip link add end0 type veth peer name end1; ip link del end0; nft add table ip end; nft delete table ip end")
				for _, line := range ip.until(t, "end0") {
					if !strings.Contains(line, "begin") && !strings.Contains(line, "end1") && !kernelsOwn(line) {
						t.Errorf("%s: ip monitor says %q", what, line)
					}
				}
				for _, line := range nft.until(t, "add table ip end") {
					if !strings.Contains(line, "begin") && !strings.Contains(line, "# new generation") {
						t.Errorf("%s: nft monitor says %q", what, line)
					}
				}
				if before != after {
					t.Errorf("%s changed\n%s\ninto\n%s", what, before, after)
				}
			}
			quiet("a first plan", func() { n.plan("n1", n.spec, reconcile.ModeApply) })
			n.applyAll()
			quiet("a plan that finds nothing", func() {
				if plan := n.plan("n1", n.spec, reconcile.ModeApply); !plan.Empty() {
					t.Errorf("it finds %+v", plan.Changes)
				}
			})
			quiet("an apply of nothing", func() { n.apply("n1", n.spec, reconcile.ModeApply) })
			quiet("a plan to destroy", func() { n.plan("n1", nil, reconcile.ModeDestroy) })
			quiet("a plan to release", func() { n.plan("n1", nil, reconcile.ModeRelease) })
		})
	}
}

// kernelsOwn are lines that ip monitor says by itself: neighbours of the
// underlay that age, and link-local addresses that settle.
func kernelsOwn(line string) bool {
	return strings.TrimSpace(line) == "" || strings.Contains(line, "fe80") || strings.Contains(line, "ff02") ||
		strings.Contains(line, "lladdr") && !strings.Contains(line, "PERMANENT") || strings.HasPrefix(strings.TrimSpace(line), "valid_lft") ||
		strings.Contains(line, "dev eth0") && strings.Contains(line, "FAILED")
}

// generation is nftables', as the library says it, which polder does not ask.
func (n *network) generation() (id uint32) {
	n.t.Helper()
	err := n.lab.Node("n1").Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		gen, err := conn.GetGen()
		if err == nil {
			id = gen.ID
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return id
}

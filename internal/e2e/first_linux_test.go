package e2e

import (
	"context"
	"flag"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

var firstChanges = flag.Int("first.changes", 20, "how often TestTheFirstIsolation isolates and frees")

// TestTheFirstIsolation: p11 speaks to p12 across the bridge as fast as it can,
// while the first policy that isolates anybody on the node comes, which allows
// that, and goes again. No packet is lost.
func TestTheFirstIsolation(t *testing.T) {
	t.Parallel()
	const policies = `
policy "p12" {
  selector = "pod == 'p12'"
  types = ["ingress", "egress"]
  ingress {
    action = "allow"
    from { selector = "pod == 'p11'" }
  }
}`
	c := cluster{backend: backendDirect, pods: ipv4}
	n := up(t, c)
	n.applyAll()
	free := n.spec
	c.more = policies
	text, _ := c.text()
	isolating := load(t, text)
	n.floods("the first policy, and the last", "p11", "p12", func() {
		for range *firstChanges {
			n.apply("n1", isolating, reconcile.ModeApply)
			n.apply("n1", free, reconcile.ModeApply)
		}
	})
	// As a polder leaves it that marked frames only while somebody is isolated.
	n.floods("nothing is marked before", "p11", "p12", func() {
		for range *firstChanges {
			n.sh("n1", "nft delete chain inet polder spoof_seen")
			n.apply("n1", isolating, reconcile.ModeApply)
			n.apply("n1", free, reconcile.ModeApply)
		}
	})
}

// floods has one pod send to another while something is done, and expects that
// all of it arrives.
func (n *network) floods(what, from, to string, do func()) {
	n.t.Helper()
	n.sh(to, `
		nft add table ip heard
		nft add chain ip heard in '{ type filter hook prerouting priority -400; }'
		nft add rule ip heard in udp dport 9 counter`)
	defer n.sh(to, "nft delete table ip heard")
	var sender, listener int
	for pod, fd := range map[string]*int{from: &sender, to: &listener} {
		err := n.lab.Machine(pod).Do(func() (err error) {
			*fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
		if err != nil {
			n.t.Fatal(err)
		}
		defer unix.Close(*fd)
	}
	at := &unix.SockaddrInet4{Port: 9, Addr: n.addressOf(to, spec.IPv4).As4()}
	// Without a socket, the pod would answer each with an error.
	if err := unix.Bind(listener, at); err != nil {
		n.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(n.t.Context())
	type result struct {
		packets int
		err     error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		for ctx.Err() == nil && r.err == nil {
			if r.err = unix.Sendto(sender, []byte("x"), 0, at); r.err == nil {
				r.packets++
			}
		}
		done <- r
	}()
	do()
	stop()
	r := <-done
	m := regexp.MustCompile(`counter packets (\d+)`).FindStringSubmatch(n.sh(to, "nft list table ip heard"))
	if m == nil {
		n.t.Fatal("there is no counter")
	}
	heard, err := strconv.Atoi(m[1])
	n.t.Logf("%s: %d packets, %d lost", what, r.packets, r.packets-heard)
	if r.err != nil || err != nil || heard != r.packets {
		n.t.Errorf("%s: %d of %d packets were lost (%v, %v)", what, r.packets-heard, r.packets, r.err, err)
	}
}

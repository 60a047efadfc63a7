package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/poldernet/polder/spec"
)

const canalPolicies = `
namespace "shop" {}
endpoint "web" {
  node      = "n1"
  addresses = ["10.244.1.5", "fd00:10:244:1::5"]
  labels    = { app = "web" }
}
endpoint "db" {
  node      = "n1"
  addresses = ["10.244.1.6", "fd00:10:244:1::6"]
  labels    = { app = "db" }
}
endpoint "new" {
  node      = "n1"
  addresses = ["10.244.1.20", "fd00:10:244:1::20"]
  labels    = { app = "new" }
}
endpoint "far" {
  node      = "n2"
  addresses = ["10.244.2.5", "fd00:10:244:2::5"]
  labels    = { app = "web" }
}
policy "db" {
  selector = "app == 'db'"
  types    = ["ingress", "egress"]
  ingress {
    action = "allow"
    ports  = ["5432/tcp"]
    from { selector = "app == 'web'" }
  }
  egress {
    action = "allow"
    ports  = ["7000/tcp"]
    to { selector = "app == 'new'" }
  }
}
host_endpoint "n1" {
  node      = "n1"
  interface = "*"
  labels    = { role = "node" }
}
policy "nodes" {
  host_selector = "role == 'node'"
  ingress {
    action = "allow"
    ports  = ["9100/tcp"]
  }
}
policy "new" {
  selector = "app == 'new'"
  ingress {
    action = "allow"
    ports  = ["7000/tcp"]
    from { selector = "app == 'db'" }
  }
}
`

// ways are "FROM TO PORT", and whether they are open, over either family.
type ways map[string]bool

func (c *canal) expect(when string, w ways) {
	c.t.Helper()
	var wait sync.WaitGroup
	for way, open := range w {
		f := strings.Fields(way)
		port, _ := strconv.Atoi(f[2])
		for _, family := range spec.Families {
			wait.Go(func() {
				if got := c.connects(f[0], f[1], family, port); got != open {
					c.t.Errorf("%s: %s over %s is open: %t, want %t", when, way, family, got, open)
				}
			})
		}
	}
	wait.Wait()
}

// outside is an address beyond the pod network.
func (c *canal) outside(f spec.Family) string {
	return spec.PerFamily[string]{IPv4: "192.0.2.99", IPv6: "2001:db8::99"}.Get(f)
}

// pinging is a ping that goes on.
type pinging struct {
	way  string
	stop func() []int // the numbers of what was answered
}

var sequence = regexp.MustCompile(`icmp_seq=(\d+) `)

// ping begins to ping an address, and returns when the first answer has come.
func (c *canal) ping(from, to string) pinging {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	cmd := c.pods[from].Command(ctx, "ping", "-i", "0.02", to)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	first, done := make(chan struct{}), make(chan []int)
	go func() {
		var answered []int
		for s := bufio.NewScanner(out); s.Scan(); {
			if m := sequence.FindStringSubmatch(s.Text()); m != nil && strings.Contains(s.Text(), "bytes from") {
				n, _ := strconv.Atoi(m[1])
				if answered = append(answered, n); len(answered) == 1 {
					close(first)
				}
			}
		}
		done <- answered
	}()
	select {
	case <-first:
	case <-time.After(10 * time.Second):
		c.t.Fatalf("%s does not reach %s", from, to)
	}
	return pinging{from + " to " + to, func() []int {
		cancel()
		answered := <-done
		_ = cmd.Wait() // it was killed
		return answered
	}}
}

// expectWhole ends streams that lost nothing: all that was sent before the last
// answer was answered.
func (c *canal) expectWhole(when string, streams ...pinging) {
	c.t.Helper()
	for _, s := range streams {
		answered := s.stop()
		if last := answered[len(answered)-1]; last-answered[0]+1 != len(answered) {
			c.t.Errorf("%s: from %s %d of %d were answered", when, s.way, len(answered), last-answered[0]+1)
		}
	}
}

// counted is what a counter of n1 has counted.
func (c *canal) counted(counter string) int {
	c.t.Helper()
	m := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(c.sh("n1", "nft list counter inet polder "+counter))
	if m == nil {
		c.t.Fatalf("there is no counter %s", counter)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// on runs polder on a node, and wants it to succeed.
func (c *canal) on(node string, args ...string) string {
	c.t.Helper()
	cmd := c.lab.Node(node).Command(c.t.Context(), append([]string{"polder", "--node", node, "--spec", c.file}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if err != nil {
		c.t.Errorf("on %s: polder %s: %v\n%s", node, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestMigrateFromCanal: on nodes of canal's polder takes over flannel's half and
// enforces its policies for the pods that canal has made, which keep their links
// and routes, and for new ones on the bridge. Nothing is lost on the way, also not
// by removing what Felix and flannel have left.
func TestMigrateFromCanal(t *testing.T) {
	c := newCanal(t)
	if status, out := c.polder("import", "flannel", "--live", "--cluster", "canal", "-o", c.file); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	text, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.file, strings.ReplaceAll(string(text), "node-192-0-2-12", "n2")+canalPolicies)

	c.expect("under canal", ways{"web db 5432": true, "far db 5432": true, "web db 7000": false, "far db 7000": false, "web far 7000": true})
	streams := func() []pinging {
		var list []pinging
		for _, f := range spec.Families {
			web, far := c.pods["web"].addrs.Get(f).String(), c.pods["far"].addrs.Get(f).String()
			list = append(list, c.ping("web", far), c.ping("far", web), c.ping("web", c.outside(f)))
		}
		return list
	}
	running := streams()
	c.sh("n1", "iptables-nft -A FORWARD -s 198.51.100.77 -j ACCEPT; iptables-nft -N MINE; iptables-nft -A FORWARD -j MINE")
	if m, text := c.check(0, c.file); len(m.Remains.Rules) != 10 || !strings.Contains(text, "chains cali-* in table ip filter, which enforces Felix's policies") {
		t.Errorf("remains are %+v\n%s", m.Remains.Rules, text)
	}
	// Without a daemon nobody knows what is in the cluster, but the network is known.
	inCluster := c.with(`(?s)$`, "kubernetes {}\n")
	if status, out := c.polder("migrate", "check", "--spec", inCluster); status != 0 || !strings.HasPrefix(out, "Of the files only:") || !strings.Contains(out, "\nClean. Node n1 ") {
		t.Errorf("status %d: %s", status, out)
	}
	if status, out := c.polder("migrate", "clean", "--auto-approve", "--spec", inCluster); status != 1 {
		t.Errorf("what polder has in the place of Felix's is not known, and it cleans up: status %d: %s", status, out)
	}
	for _, node := range []string{"n1", "n2"} {
		c.on(node, "apply", "--auto-approve")
	}
	c.expectWhole("at the switch", running...)
	routed := ways{
		"web db 5432": true, "far db 5432": true, "web db 7000": false, "far db 7000": false,
		"db web 7000": false, "db far 7000": false, "web far 7000": true, "far web 7000": true,
	}
	c.expect("beside Felix", routed)

	running = streams()
	status, out := c.polder("migrate", "clean", "--check", "--spec", c.file)
	if status != 2 || !strings.Contains(out, `- chain "ip filter cali-FORWARD"`) || !strings.Contains(out, `- rule "ip filter FORWARD 1" { jump = cali-FORWARD }`) || !strings.Contains(out, "ipset destroy") {
		t.Errorf("status %d: %s", status, out)
	}
	for _, node := range []string{"n1", "n2"} {
		c.on(node, "migrate", "clean", "--auto-approve")
		left := c.sh(node, "iptables-nft-save; ip6tables-nft-save; nft list tables")
		if strings.Contains(left, "cali") || strings.Contains(left, "FLANNEL") {
			t.Errorf("on %s there is left\n%s", node, left)
		}
	}
	c.expectWhole("cleaning up", running...)
	if left := c.sh("n1", "iptables-nft-save"); !strings.Contains(left, "-A FORWARD -s 198.51.100.77/32 -j ACCEPT\n-A FORWARD -j MINE") {
		t.Errorf("somebody else's rules are\n%s", left)
	}
	c.expect("without Felix", routed)
	// A host endpoint of all interfaces is not about what leads to pods.
	for _, n1 := range []string{"192.0.2.11", "2001:db8::11"} {
		c.in("web", "ping -c 1 -W 5 "+n1)
		if out, err := c.lab.Host("outside").Command(t.Context(), "ping", "-c", "1", "-W", "1", n1).CombinedOutput(); err == nil {
			t.Errorf("n1 is open to the outside:\n%s", out)
		}
	}

	c.pod("new", "n1", 20, (*canal).bridged)
	c.expect("with a pod on the bridge", ways{
		"new web 7000": true, "new far 7000": true, "new db 5432": false, "new db 7000": false,
		"db new 7000": true, "db new 5432": false, "web new 7000": false, "far new 7000": false,
		"web db 5432": true, "far db 5432": true, "db web 7000": false,
	})
	c.forge()
	c.forget()
}

// forge sends from addresses that are not the sender's: a neighbour's by a link of
// its own, one of the outside, and a routed pod's by the bridge.
func (c *canal) forge() {
	c.t.Helper()
	for _, lie := range [][2]string{
		{"web", "10.244.1.6"}, {"web", "198.51.100.7"}, {"web", "10.244.7.7"}, {"new", "10.244.1.5"},
		{"web", "fd00:10:244:1::6"}, {"web", "2001:db8:99::7"}, {"web", "fd00:10:244:7::7"}, {"new", "fd00:10:244:1::5"},
	} {
		before := c.counted("guard_interface")
		f := spec.FamilyOf(netip.MustParseAddr(lie[1]))
		// An IPv6 address is tentative for a moment otherwise.
		at := spec.PerFamily[string]{IPv4: "dev lo", IPv6: "dev lo nodad"}.Get(f)
		// Nobody answers, of course.
		c.in(lie[0], fmt.Sprintf("ip addr add %[1]s %[2]s; ping -c 1 -W 0.1 -I %[1]s %[3]s || true; ip addr del %[1]s dev lo", lie[1], at, c.pods["far"].addrs.Get(f)))
		after := c.counted("guard_interface")
		for begin := time.Now(); after == before && time.Since(begin) < 20*time.Second; after = c.counted("guard_interface") {
			runtime.Gosched() // it waits for the neighbour whom it goes to
		}
		if after != before+1 {
			c.t.Errorf("%s speaks as %s: %d packets were dropped, want 1", lie[0], lie[1], after-before)
		}
	}
}

// forget ends a routed pod under a daemon, which looks after the others.
func (c *canal) forget() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	cmd := c.lab.Node("n1").Command(ctx, "polder", "--node", "n1", "--spec", c.file, "run")
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	// The links, and for whom the bridge answers.
	links := func() string {
		found := regexp.MustCompile(`"cali\w+"`).FindAllString(c.sh("n1", "nft list set inet polder routed_links 2>&1 || true"), -1)
		for line := range strings.Lines(c.sh("n1", "ip neigh show proxy dev cni0")) {
			found = append(found, strings.Fields(line)[0])
		}
		slices.Sort(found)
		return strings.Join(found, " ")
	}
	await := func(want string) {
		c.t.Helper()
		begin := time.Now()
		for links() != want {
			if runtime.Gosched(); time.Since(begin) > 20*time.Second {
				c.t.Fatalf("routed are %q, want %q", links(), want)
			}
		}
	}
	await(`"calidb" "caliweb" 10.244.1.5 10.244.1.6 fd00:10:244:1::5 fd00:10:244:1::6`)
	c.attach()
	c.sh("n1", "ip link del calidb")
	await(`"caliweb" 10.244.1.5 fd00:10:244:1::5`)
	c.sh("n1", "ip link del caliweb")
	await("")
	if !strings.Contains(c.sh("n1", "nft list chain inet polder guard_prerouting"), "pod address on a wrong interface") {
		c.t.Error("the guard is gone")
	}
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// canal is a cluster of two nodes whose pods canal has made: flannel leads from node
// to node, each pod has a link and a route of its own, and Felix has its chains.
type canal struct {
	flannelNode

	pods map[string]*canalPod
}

type canalPod struct {
	*lab.Namespace
	node string
	addr netip.Addr
}

const canalPolicies = `
namespace "shop" {}
endpoint "web" {
  node      = "n1"
  addresses = ["10.244.1.5"]
  labels    = { app = "web" }
}
endpoint "db" {
  node      = "n1"
  addresses = ["10.244.1.6"]
  labels    = { app = "db" }
}
endpoint "new" {
  node      = "n1"
  addresses = ["10.244.1.20"]
  labels    = { app = "new" }
}
endpoint "far" {
  node      = "n2"
  addresses = ["10.244.2.5"]
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

// canalLab has a default route: without a route to 169.254.1.1, which all pods have
// as their gateway, the node does not answer for it.
const canalLab = `link "lan" {}
node "n1" {
  link "lan" { gateways = ["192.0.2.99"] }
}
node "n2" {
  link "lan" { gateways = ["192.0.2.99"] }
}
host "outside" {
  link "lan" { addresses = ["192.0.2.99/24"] }
}
`

// felixTable is what Felix has with nftables instead, in brief.
const felixTable = `table ip calico {
	set cali40s-web { type ipv4_addr; elements = { 10.244.1.5 }; }
	map filter-cali-from-wl-dispatch { type ifname : verdict; }
	chain filter-cali-fw-califar { meta mark set meta mark | 0x10000; }
	chain filter-FORWARD { type filter hook forward priority 0; policy accept; iifname "cali*" iifname vmap @filter-cali-from-wl-dispatch; ip saddr @cali40s-web counter; }
}
add element ip calico filter-cali-from-wl-dispatch { "califar" : goto filter-cali-fw-califar }
`

// newCanal makes the cluster with ip(8), iptables-restore, and what flannel writes
// for CNI plugins.
func newCanal(t *testing.T) *canal {
	t.Helper()
	lab.Require(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "cluster.hcl")
	write(t, source, `cluster = "canal"
network {
  pod_cidrs = ["10.244.0.0/16"]
}
node "n1" {
  addresses = ["192.0.2.11/24"]
  subnets   = ["10.244.1.0/24"]
}
node "n2" {
  addresses = ["192.0.2.12/24"]
  subnets   = ["10.244.2.0/24"]
}
`)
	config, diags := spec.Load(source, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	top, diags := lab.ParseTopology("test.lab.hcl", []byte(canalLab))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	l, err := lab.Up(t.Context(), top, config.Spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &canal{flannelNode{t: t, lab: l, spec: config.Spec, file: filepath.Join(dir, "imported.hcl")}, map[string]*canalPod{}}
	felix, err := os.ReadFile("testdata/canal/felix.rules")
	if err != nil {
		t.Fatal(err)
	}
	for own, other := range map[int]int{1: 2, 2: 1} {
		node := fmt.Sprintf("n%d", own)
		c.sh(node, fmt.Sprintf(`
			echo 1 >/proc/sys/net/ipv4/ip_forward
			ip link add flannel.1 address 0a:00:00:00:00:0%[1]d type vxlan id 1 dstport 8472 local 192.0.2.1%[1]d dev eth0 nolearning
			ip addr add 10.244.%[1]d.0/32 dev flannel.1; ip link set flannel.1 up
			ip neigh replace 10.244.%[2]d.0 lladdr 0a:00:00:00:00:0%[2]d dev flannel.1 nud permanent
			bridge fdb replace 0a:00:00:00:00:0%[2]d dev flannel.1 dst 192.0.2.1%[2]d self permanent
			ip route replace 10.244.%[2]d.0/24 via 10.244.%[2]d.0 dev flannel.1 onlink
			mkdir -p /run/flannel
			printf 'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.%[1]d.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n' >/run/flannel/subnet.env
			iptables-nft-restore --noflush <<-'END'
			%[3]s
			END`, own, other, felix))
		c.settle(node)
	}
	c.sh("n2", "nft -f - <<-'END'\n"+felixTable+"END")
	c.pod("web", "n1", "10.244.1.5", (*canal).routed)
	c.pod("db", "n1", "10.244.1.6", (*canal).routed)
	c.pod("far", "n2", "10.244.2.5", (*canal).routed)
	return c
}

// pod makes a pod, which answers at the ports 5432 and 7000.
func (c *canal) pod(name, node, addr string, attach func(*canal, string)) {
	c.t.Helper()
	ns, err := lab.NewNamespace(name)
	if err != nil {
		c.t.Fatal(err)
	}
	p := &canalPod{ns, node, netip.MustParseAddr(addr)}
	c.t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			c.t.Error(err)
		}
	})
	c.pods[name] = p
	c.sh(node, fmt.Sprintf("ip link add cali%s mtu 1450 type veth peer name eth0-pod; ip link set eth0-pod netns %s name eth0", name, ns.Path()))
	attach(c, name)
	c.settle(node)
	for _, port := range []int{5432, 7000} {
		var l net.Listener
		err := ns.Do(func() (err error) {
			l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
			return err
		})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.Close()
			}
		}()
	}
}

// in runs a command in a pod.
func (c *canal) in(pod, command string) {
	c.t.Helper()
	if out, err := c.pods[pod].Command(c.t.Context(), "sh", "-ec", command).CombinedOutput(); err != nil {
		c.t.Fatalf("in %s: %s: %v\n%s", pod, command, err, out)
	}
}

// routed attaches a pod as Calico's CNI plugin does.
func (c *canal) routed(name string) {
	c.t.Helper()
	p := c.pods[name]
	c.sh(p.node, fmt.Sprintf(`
		ip link set cali%[1]s address ee:ee:ee:ee:ee:ee up
		cd /proc/sys/net/ipv4; echo 1 >conf/cali%[1]s/proxy_arp; echo 0 >neigh/cali%[1]s/proxy_delay; echo 1 >conf/cali%[1]s/forwarding
		ip route add %[2]s dev cali%[1]s scope link`, name, p.addr))
	c.in(name, fmt.Sprintf("ip link set eth0 up; ip addr add %s/32 dev eth0; ip route add 169.254.1.1 dev eth0 scope link; ip route add default via 169.254.1.1 dev eth0", p.addr))
}

// bridged attaches a pod as the bridge plugin does.
func (c *canal) bridged(name string) {
	c.t.Helper()
	p := c.pods[name]
	c.sh(p.node, fmt.Sprintf("ip link set cali%[1]s name veth%[1]s; ip link set veth%[1]s master cni0 up; bridge link set dev veth%[1]s hairpin on", name))
	c.in(name, fmt.Sprintf("ip link set eth0 up; ip addr add %s/24 dev eth0; ip route add default via %s", p.addr, netip.PrefixFrom(p.addr, 24).Masked().Addr().Next()))
}

// connects says whether a pod reaches another one's port.
func (c *canal) connects(from, to string, port int) (open bool) {
	err := c.pods[from].Do(func() error {
		conn, err := net.DialTimeout("tcp4", net.JoinHostPort(c.pods[to].addr.String(), strconv.Itoa(port)), time.Second)
		if open = err == nil; open {
			_ = conn.Close()
		}
		return nil
	})
	return err == nil && open
}

// ways are "FROM TO PORT", and whether they are open.
type ways map[string]bool

func (c *canal) expect(when string, w ways) {
	c.t.Helper()
	var wait sync.WaitGroup
	for way, open := range w {
		f := strings.Fields(way)
		port, _ := strconv.Atoi(f[2])
		wait.Go(func() {
			if got := c.connects(f[0], f[1], port); got != open {
				c.t.Errorf("%s: %s is open: %t, want %t", when, way, got, open)
			}
		})
	}
	wait.Wait()
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
		return []pinging{c.ping("web", "10.244.2.5"), c.ping("far", "10.244.1.5"), c.ping("web", "192.0.2.99")}
	}
	running := streams()
	c.sh("n1", "iptables-nft -A FORWARD -s 198.51.100.77 -j ACCEPT; iptables-nft -N MINE; iptables-nft -A FORWARD -j MINE")
	if m, text := c.check(0, c.file); len(m.Remains.Rules) != 5 || !strings.Contains(text, "chains cali-* in table ip filter, which enforces Felix's policies") {
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
		left := c.sh(node, "iptables-nft-save; nft list tables")
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
	c.in("web", "ping -c 1 -W 5 192.0.2.11")
	if out, err := c.lab.Host("outside").Command(t.Context(), "ping", "-c", "1", "-W", "1", "192.0.2.11").CombinedOutput(); err == nil {
		t.Errorf("n1 is open to the outside:\n%s", out)
	}

	c.pod("new", "n1", "10.244.1.20", (*canal).bridged)
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
	for _, lie := range [][2]string{{"web", "10.244.1.6"}, {"web", "198.51.100.7"}, {"web", "10.244.7.7"}, {"new", "10.244.1.5"}} {
		before := c.counted("guard_interface")
		// Nobody answers, of course.
		c.in(lie[0], fmt.Sprintf("ip addr add %[1]s/32 dev lo; ping -c 1 -W 0.1 -I %[1]s 10.244.2.5 || true; ip addr del %[1]s/32 dev lo", lie[1]))
		if after := c.counted("guard_interface"); after != before+1 {
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
	await(`"calidb" "caliweb" 10.244.1.5 10.244.1.6`)
	c.attach()
	c.sh("n1", "ip link del calidb")
	await(`"caliweb" 10.244.1.5`)
	c.sh("n1", "ip link del caliweb")
	await("")
	if !strings.Contains(c.sh("n1", "nft list chain inet polder guard_prerouting"), "pod address on a wrong interface") {
		c.t.Error("the guard is gone")
	}
}

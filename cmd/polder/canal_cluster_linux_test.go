package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// canal is a cluster of two nodes whose pods canal has made, with both families:
// flannel leads from node to node, each pod has a link and routes of its own, and
// Felix has its chains.
type canal struct {
	flannelNode

	pods map[string]*canalPod
}

type canalPod struct {
	*lab.Namespace
	node  string
	addrs spec.PerFamily[netip.Addr]
}

// canalLab has default routes: without a route to 169.254.1.1, which all pods have
// as their gateway, the node does not answer for it. Of IPv6 that is the node's end
// of the pod's link.
const canalLab = `link "lan" {}
node "n1" {
  link "lan" { gateways = ["192.0.2.99", "2001:db8::99"] }
}
node "n2" {
  link "lan" { gateways = ["192.0.2.99", "2001:db8::99"] }
}
host "outside" {
  link "lan" { addresses = ["192.0.2.99/24", "2001:db8::99/64"] }
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

// overIPv6 writes what Felix and flannel have for IPv4 as what they have for IPv6.
// There Felix lets pods solicit their neighbours (felix/rules/static.go).
var overIPv6 = strings.NewReplacer(
	"10.244.0.0/16", "fd00:10:244::/48",
	"10.244.1.5/32", "fd00:10:244:1::5/128", "10.244.1.20/32", "fd00:10:244:1::20/128", "10.244.2.5/32", "fd00:10:244:2::5/128",
	"224.0.0.0/4", "ff00::/8",
	"-A cali-wl-to-host -m comment --comment \"cali:Ee9Sbo10IpVujdIY\"", "-A cali-wl-to-host -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m comment --comment \"cali:bR5LUvVvWtbSFsGu\" -j ACCEPT\n"+
		"-A cali-wl-to-host -p ipv6-icmp -m icmp6 --icmpv6-type 136 -m comment --comment \"cali:hYS5SZ8PWtbSFsGv\" -j ACCEPT\n"+
		"-A cali-wl-to-host -m comment --comment \"cali:Ee9Sbo10IpVujdIY\"",
	"10.244.1.5", "fd00:10:244:1::5", "table ip ", "table ip6 ", "element ip ", "element ip6 ", "ipv4_addr", "ipv6_addr", "ip saddr", "ip6 saddr",
)

// newCanal makes the cluster with ip(8), iptables-restore, and what flannel writes
// for CNI plugins.
func newCanal(t *testing.T) *canal {
	t.Helper()
	lab.Require(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "cluster.hcl")
	write(t, source, `cluster = "canal"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
}
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
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
			echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
			vtep() { # DEVICE MAC LOCAL SUBNET, and of the other node MAC ADDRESS SUBNET
				ip link add $1 address $2 type vxlan id 1 dstport 8472 local $3 dev eth0 nolearning
				ip addr add $4/$8 dev $1; ip link set $1 up
				ip neigh replace $7 lladdr $5 dev $1 nud permanent
				bridge fdb replace $5 dev $1 dst $6 self permanent
				ip route replace $7/$9 via $7 dev $1 onlink
			}
			vtep flannel.1 0a:00:00:00:04:0%[1]d 192.0.2.1%[1]d 10.244.%[1]d.0 0a:00:00:00:04:0%[2]d 192.0.2.1%[2]d 10.244.%[2]d.0 32 24
			vtep flannel-v6.1 0a:00:00:00:06:0%[1]d 2001:db8::1%[1]d fd00:10:244:%[1]d:: 0a:00:00:00:06:0%[2]d 2001:db8::1%[2]d fd00:10:244:%[2]d:: 128 64
			mkdir -p /run/flannel
			cat >/run/flannel/subnet.env <<-'END'
			FLANNEL_NETWORK=10.244.0.0/16
			FLANNEL_SUBNET=10.244.%[1]d.1/24
			FLANNEL_IPV6_NETWORK=fd00:10:244::/48
			FLANNEL_IPV6_SUBNET=fd00:10:244:%[1]d::1/64
			FLANNEL_MTU=1450
			FLANNEL_IPMASQ=true
			END
			iptables-nft-restore --noflush <<-'END'
			%[3]s
			END
			ip6tables-nft-restore --noflush <<-'END'
			%[4]s
			END`, own, other, felix, overIPv6.Replace(string(felix))))
		c.settle(node)
	}
	c.sh("n2", "nft -f - <<-'END'\n"+felixTable+overIPv6.Replace(felixTable)+"END")
	c.pod("web", "n1", 5, (*canal).routed)
	c.pod("db", "n1", 6, (*canal).routed)
	c.pod("far", "n2", 5, (*canal).routed)
	return c
}

// pod makes a pod with an address of that number in each subnet of its node's. It
// answers at the ports 5432 and 7000.
func (c *canal) pod(name, node string, number int, attach func(*canal, string)) {
	c.t.Helper()
	ns, err := lab.NewNamespace(name)
	if err != nil {
		c.t.Fatal(err)
	}
	p := &canalPod{ns, node, spec.PerFamily[netip.Addr]{
		IPv4: netip.MustParseAddr(fmt.Sprintf("10.244.%s.%d", node[1:], number)),
		IPv6: netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%s::%d", node[1:], number)),
	}}
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
			l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
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

// routed attaches a pod as Calico's CNI plugin does
// (cni-plugin/pkg/dataplane/linux/dataplane_linux.go).
func (c *canal) routed(name string) {
	c.t.Helper()
	p := c.pods[name]
	c.sh(p.node, fmt.Sprintf(`
		cd /proc/sys/net
		echo 1 >ipv4/conf/cali%[1]s/proxy_arp; echo 0 >ipv4/neigh/cali%[1]s/proxy_delay; echo 1 >ipv4/conf/cali%[1]s/forwarding
		echo 0 >ipv6/conf/cali%[1]s/accept_dad; echo 1 >ipv6/conf/cali%[1]s/proxy_ndp; echo 1 >ipv6/conf/cali%[1]s/forwarding; echo 0 >ipv6/conf/cali%[1]s/accept_ra
		ip link set cali%[1]s address ee:ee:ee:ee:ee:ee up
		for a in %[2]s %[3]s; do ip route add $a dev cali%[1]s scope link; done`, name, p.addrs.IPv4, p.addrs.IPv6))
	c.in(name, fmt.Sprintf(`
		echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up
		ip addr add %s/32 dev eth0; ip route add 169.254.1.1 dev eth0 scope link; ip route add default via 169.254.1.1 dev eth0
		ip addr add %s/128 dev eth0 nodad; ip route add default via fe80::ecee:eeff:feee:eeee dev eth0`, p.addrs.IPv4, p.addrs.IPv6))
}

// bridged attaches a pod as the bridge plugin does.
func (c *canal) bridged(name string) {
	c.t.Helper()
	p := c.pods[name]
	c.sh(p.node, fmt.Sprintf("ip link set cali%[1]s name veth%[1]s; ip link set veth%[1]s master cni0 up; bridge link set dev veth%[1]s hairpin on", name))
	c.in(name, fmt.Sprintf(`
		echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up
		ip addr add %[1]s/24 dev eth0; ip route add default via 10.244.%[3]s.1
		ip addr add %[2]s/64 dev eth0 nodad; ip route add default via fd00:10:244:%[3]s::1`, p.addrs.IPv4, p.addrs.IPv6, p.node[1:]))
}

// connects says whether a pod reaches another one's port over a family.
func (c *canal) connects(from, to string, f spec.Family, port int) (open bool) {
	err := c.pods[from].Do(func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(c.pods[to].addrs.Get(f).String(), strconv.Itoa(port)), time.Second)
		if open = err == nil; open {
			_ = conn.Close()
		}
		return nil
	})
	return err == nil && open
}

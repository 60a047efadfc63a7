package e2e

import (
	"regexp"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// counter is a machine's counter of packets of a protocol: those that come to
// its sockets, or that these send, to the port or from it.
type counter struct {
	machine, set string
	protocol     lab.Protocol
	port         uint16
}

// counters are those of a connection's packets at one of its ends.
func (e *established) counters(c *connection, s side) (came, sent counter) {
	if s == server {
		return counter{c.way.server, "came_to", c.protocol, c.port}, counter{c.way.server, "sent_from", c.protocol, c.port}
	}
	port := c.way.dialled(e.network, c.family, c.port).Port()
	return counter{"p11", "came_from", c.protocol, port}, counter{"p11", "sent_to", c.protocol, port}
}

// count has a machine count what arrives at its sockets, behind all other
// rules, and what these send, before all others.
func (n *network) count(machine string) {
	n.t.Helper()
	n.sh(machine, `nft -f - <<'end'
table inet counts {
	set came_to   { type inet_proto . inet_service; flags dynamic; size 65535; }
	set came_from { type inet_proto . inet_service; flags dynamic; size 65535; }
	set sent_to   { type inet_proto . inet_service; flags dynamic; size 65535; }
	set sent_from { type inet_proto . inet_service; flags dynamic; size 65535; }
	chain input {
		type filter hook input priority 300;
		meta l4proto { tcp, udp } update @came_to   { meta l4proto . th dport counter }
		meta l4proto { tcp, udp } update @came_from { meta l4proto . th sport counter }
	}
	chain output {
		type filter hook output priority -500;
		meta l4proto { tcp, udp } update @sent_to   { meta l4proto . th dport counter }
		meta l4proto { tcp, udp } update @sent_from { meta l4proto . th sport counter }
	}
}
end`)
}

// counted is the beginning of a set, or an element.
var counted = regexp.MustCompile(`set (\w+) \{|(tcp|udp) \. (\d+) counter packets (\d+)`)

// counts are the packets so far.
func (e *established) counts() map[counter]int {
	e.t.Helper()
	counts := map[counter]int{}
	machines := []string{"p11"}
	for _, r := range ways {
		machines = append(machines, r.server)
	}
	slices.Sort(machines)
	for _, machine := range slices.Compact(machines) {
		set := ""
		for _, m := range counted.FindAllStringSubmatch(e.sh(machine, "nft list table inet counts"), -1) {
			if m[1] != "" {
				set = m[1]
				continue
			}
			port, _ := strconv.ParseUint(m[3], 10, 16) // digits
			packets, _ := strconv.Atoi(m[4])
			counts[counter{machine, set, lab.Protocol(m[2]), uint16(port)}] = packets
		}
	}
	return counts
}

// known expects that conntrack still has the connections, on the client's node
// and the server's.
func (e *established) known(cells []*cell) {
	e.t.Helper()
	numbers := map[lab.Protocol]uint8{lab.TCP: unix.IPPROTO_TCP, lab.UDP: unix.IPPROTO_UDP}
	for _, node := range nodeNames {
		flows := map[spec.Family][]*netlink.ConntrackFlow{}
		err := e.lab.Node(node).Do(func() (err error) {
			if flows[spec.IPv4], err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET); err != nil {
				return err
			}
			flows[spec.IPv6], err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET6)
			return err
		})
		if err != nil {
			e.t.Fatalf("reading conntrack on %s: %v", node, err)
		}
		for _, c := range cells {
			if node != "n1" && node != c.way.node {
				continue
			}
			known := slices.ContainsFunc(flows[c.family], func(f *netlink.ConntrackFlow) bool {
				return f.Forward.Protocol == numbers[c.protocol] && f.Reverse.SrcPort == c.known.port &&
					f.Reverse.SrcIP.Equal(c.way.address(e.network, c.family).AsSlice())
			})
			if !known {
				e.t.Errorf("%s: conntrack on %s no longer knows it", c.name, node)
			}
		}
	}
}

// forget has conntrack forget everything, as `conntrack -F` does.
func (n *network) forget(nodes []string) {
	n.t.Helper()
	for _, node := range nodes {
		if err := n.lab.Node(node).Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			n.t.Fatalf("flushing conntrack on %s: %v", node, err)
		}
	}
}

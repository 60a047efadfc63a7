package e2e

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// The ports of servers that the changes are about, and of those that they
// leave alone. A service's own port is another one.
const (
	firstPort   = 10_000
	siblingPort = 11_000
	morePorts   = siblingPort - firstPort // there are so many of either
	servicePort = 20_000                  // is added to the server's
)

func ports(first int) string {
	return fmt.Sprintf(`["%d-%d/tcp", "%[1]d-%[2]d/udp"]`, first, first+morePorts-1)
}

// ways are the ways from pod p11 on n1 to a server.
var ways = []way{
	{name: "same node, bridge", server: "p12", node: "n1"},
	{name: "direct routing", server: "p21", node: "n2"},
	{name: "VXLAN", server: "p31", node: "n3"},
	{name: "service, same node", server: "p12", node: "n1", service: 12},
	{name: "service, VXLAN", server: "p31", node: "n3", service: 31},
	{name: "masquerade, host endpoint", server: "n2", node: "n2", masqueraded: true},
	{name: "masquerade, outside", server: "outside", masqueraded: true, open: true},
	{name: "its own node", server: "n1", node: "n1", open: true},
}

// way is a way to a server.
type way struct {
	name        string
	server      string // a machine
	node        string // that judges ingress
	service     byte   // the end of the address that another program's table translates; 0: none
	masqueraded bool
	open        bool // nothing judges the server's ingress
}

// address is the server's own.
func (r way) address(n *network, f spec.Family) netip.Addr {
	switch {
	case r.server == "outside":
		return outside(f)
	case n.spec.Node(r.server) != nil:
		a, _ := n.spec.Node(r.server).Address(f)
		return a.Addr
	}
	return address(n.endpoint(r.server), f)
}

// dialled is what the client dials to come to the server's port.
func (r way) dialled(n *network, f spec.Family, port uint16) netip.AddrPort {
	a := r.address(n, f)
	if r.service != 0 {
		port += servicePort
		a = serviceAddress(f, r.service)
	}
	return netip.AddrPortFrom(a, port)
}

func serviceAddress(f spec.Family, end byte) netip.Addr {
	if f == spec.IPv4 {
		return netip.AddrFrom4([4]byte{10, 96, 0, end})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 5: 0x96, 15: end})
}

// source is the client's address, as the server sees it.
func (r way) source(n *network, f spec.Family) netip.Addr {
	if r.masqueraded {
		a, _ := n.spec.Node("n1").Address(f)
		return a.Addr
	}
	return address(n.endpoint("p11"), f)
}

// services has another program's table translate the addresses and ports of
// services on n1.
func (n *network) services() {
	n.t.Helper()
	var ports []string
	for port := firstPort; port < siblingPort+morePorts; port++ {
		ports = append(ports, fmt.Sprintf("%d : %d", port+servicePort, port))
	}
	var b strings.Builder
	for _, f := range dual {
		family := map[spec.Family]string{spec.IPv4: "ip", spec.IPv6: "ip6"}[f]
		fmt.Fprintf(&b, "table %s services {\nmap ports {\ntype inet_service : inet_service; elements = { %s }\n}\n", family, strings.Join(ports, ", "))
		b.WriteString("chain prerouting {\ntype nat hook prerouting priority dstnat;\n")
		for _, r := range ways {
			if r.service == 0 {
				continue
			}
			for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
				fmt.Fprintf(&b, "%s daddr %s meta l4proto %s dnat to %s : %[3]s dport map @ports\n", family, serviceAddress(f, r.service), protocol, r.address(n, f))
			}
		}
		b.WriteString("}\n}\n")
	}
	n.sh("n1", "nft -f - <<'end'\n"+b.String()+"end")
}

package rows

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/spec"
)

// The world of all cases: namespaces x, y and z with pods a, b and c each. Those
// of x and y run on node n1, those of z on n2. Outside of the cluster, on the
// link of the nodes, are two hosts. The pods m1 and m2, one on each node, are no
// endpoints: to policies they are strangers, too.
const base = `
cluster = "rows"
kubernetes_manifests = ["*.yaml"]
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
  backend "host-gw" {}
}
namespace "x" { labels = { ns = "x", team = "red" } }
namespace "y" { labels = { ns = "y" } }
namespace "z" { labels = { ns = "z", team = "" } }
`

// served are the ports that every pod has a name for.
const served = `serve-80-tcp = "80/tcp", serve-81-tcp = "81/tcp", serve-80-udp = "80/udp", serve-81-udp = "81/udp", serve-80-sctp = "80/sctp", serve-81-sctp = "81/sctp"`

// The labels of some pods, beside "pod", and the ports that they call web.
var (
	labelsOf = map[string]string{"x/b": `role = "web"`, "y/a": `role = ""`, "z/a": `role = "db"`, "z/b": `role = "web-2"`}
	webOf    = map[string]int{"x/a": 8080, "x/b": 9090, "y/a": 7070, "z/a": 9090}
)

// pair is an address of each family.
type pair spec.PerFamily[netip.Addr]

func newPair(v4, v6 string) pair {
	return pair{IPv4: netip.MustParseAddr(v4), IPv6: netip.MustParseAddr(v6)}
}

func (p pair) of(f spec.Family) netip.Addr { return spec.PerFamily[netip.Addr](p).Get(f) }

func (p pair) list() string { return fmt.Sprintf("[%q, %q]", p.IPv4, p.IPv6) }

// party is somebody that a line can name.
type party struct {
	name    string
	machine string // of the lab
	node    string // of a pod
	pair
}

var (
	nodeNames = []string{"n1", "n2"}
	pods      = podsOf("x", "n1", 1).and(podsOf("y", "n1", 2)).and(podsOf("z", "n2", 3))
	markers   = parties{
		{"m1", "m1", "n1", newPair("10.244.1.250", "fd00:10:244:1::250")},
		{"m2", "m2", "n2", newPair("10.244.2.250", "fd00:10:244:2::250")},
	}
	hosts = parties{
		{"outside", "outside", "", newPair("192.0.2.99", "2001:db8::99")},
		{"outside2", "outside2", "", newPair("192.0.2.98", "2001:db8::98")},
	}
	nodes = parties{
		{"n1", "n1", "", newPair("192.0.2.11", "2001:db8::11")},
		{"n2", "n2", "", newPair("192.0.2.12", "2001:db8::12")},
		{"n1bridge", "n1", "", newPair("10.244.1.1", "fd00:10:244:1::1")},
		{"n2bridge", "n2", "", newPair("10.244.2.1", "fd00:10:244:2::1")},
	}
	everybody = pods.and(markers).and(hosts).and(nodes)
)

type parties []party

func (p parties) and(more parties) parties { return slices.Concat(p, more) }

// find is the party of a name; it has none if there is none.
func (p parties) find(name string) party {
	if i := slices.IndexFunc(p, func(x party) bool { return x.name == name }); i >= 0 {
		return p[i]
	}
	return party{}
}

func podsOf(namespace, node string, tens int) (list parties) {
	for i, pod := range []string{"a", "b", "c"} {
		subnet := strings.TrimPrefix(node, "n")
		list = append(list, party{
			namespace + "/" + pod, namespace + "-" + pod, node,
			newPair(fmt.Sprintf("10.244.%s.%d%d", subnet, tens, i), fmt.Sprintf("fd00:10:244:%s::%d%d", subnet, tens, i)),
		})
	}
	return list
}

// world is the text of the world's spec. With the markers it is for making a lab
// of it.
func world(markers ...party) string {
	var s strings.Builder
	s.WriteString(base)
	for i, name := range nodeNames {
		p := nodes.find(name)
		fmt.Fprintf(&s, "node %q {\n  addresses = [\"%s/24\", \"%s/64\"]\n  subnets = [\"10.244.%d.0/24\", \"fd00:10:244:%[4]d::/64\"]\n}\n", name, p.IPv4, p.IPv6, i+1)
	}
	for _, p := range pods {
		namespace, pod, _ := strings.Cut(p.name, "/")
		ports := served
		if n := webOf[p.name]; n != 0 {
			ports += fmt.Sprintf(`, web = "%d/tcp"`, n)
		}
		labels := fmt.Sprintf("pod = %q", pod)
		if more := labelsOf[p.name]; more != "" {
			labels += ", " + more
		}
		fmt.Fprintf(&s, "endpoint %q {\n  namespace = %q\n  labels = { %s }\n  ports = { %s }\n%s}\n", p.machine, namespace, labels, ports, p.attached())
	}
	for _, p := range markers {
		fmt.Fprintf(&s, "endpoint %q {\n%s}\n", p.machine, p.attached())
	}
	return s.String()
}

// attached is where a pod is attached, and under which addresses.
func (p party) attached() string {
	last := p.IPv6.As16()
	mac := spec.MAC{2, 0, 0, 0, last[7], last[15]}
	return fmt.Sprintf("  node = %q\n  interface = %q\n  mac = %q\n  addresses = %s\n", p.node, "v-"+p.machine, mac, p.list())
}

// The ports of a service, and those of its pod that they are translated to. The
// service of a pod has an address of its own.
var servicePorts = map[uint16]uint16{80: 8080, 8080: 80, 81: 8081, 8081: 81}

// service is the address of a pod's service.
func (p party) service() pair {
	last4, last6 := p.IPv4.As4(), p.IPv6.As16()
	return pair{
		IPv4: netip.AddrFrom4([4]byte{10, 96, 0, last4[3]}),
		IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 5: 0x96, 15: last6[15]}),
	}
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/internal/remains"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// attach makes pods ports of a bridge as the CNI plugins flannel and bridge do,
// with what flannel wrote for them (plugins/main/bridge in
// containernetworking/plugins v1.9.1).
const attach = `
	. /run/flannel/subnet.env
	ip link add cni0 mtu $FLANNEL_MTU type bridge
	echo 0 >/proc/sys/net/ipv6/conf/cni0/accept_ra; ip link set cni0 up
	for port in veth1 veth2; do
		ip link set $port mtu $FLANNEL_MTU master cni0; bridge link set dev $port hairpin on isolated off
	done
	for gateway in $FLANNEL_SUBNET $FLANNEL_IPV6_SUBNET; do
		ip addr add $gateway dev cni0
		ip link set cni0 address $(cat /sys/class/net/cni0/address)
	done
	echo 1 >/proc/sys/net/ipv4/ip_forward
	[ -z "$FLANNEL_IPV6_SUBNET" ] || echo 1 >/proc/sys/net/ipv6/conf/all/forwarding`

// flannel makes the cluster's network with the real thing, on the named nodes.
func (n *network) flannel(rules peers.Rules, nodes []string) *peers.Flannel {
	n.t.Helper()
	namespaces := map[string]*lab.Namespace{}
	for _, node := range nodes {
		namespaces[node] = n.lab.Node(node)
	}
	f := peers.StartFlannel(n.t, n.spec, namespaces, rules)
	for _, node := range nodes {
		n.sh(node, attach)
	}
	if err := n.lab.SyncPodMTU(); err != nil {
		n.t.Fatal(err)
	}
	for _, node := range nodes {
		n.settle(node)
	}
	return f
}

// withVTEPs is the spec with the MACs that flannel drew, which a user reads on
// each node and writes into the file.
func (n *network) withVTEPs(c cluster, nodes []string) *spec.Spec {
	n.t.Helper()
	c.nodes = map[string]string{}
	for _, node := range nodes {
		var macs []string
		for _, f := range c.pods {
			device := n.spec.Network.Backend.Device.Get(f)
			macs = append(macs, fmt.Sprintf("%s = %q", f, strings.TrimSpace(n.sh(node, "cat /sys/class/net/"+device+"/address"))))
		}
		c.nodes[node] = "vtep_mac = { " + strings.Join(macs, ", ") + " }"
	}
	text, _ := c.text()
	return load(n.t, text)
}

// mesh pings from each pod of some nodes to each one after it in the list, so
// that packets cross each pair both ways, and from the first to the outside, in
// each family.
func (n *network) mesh(fs families, nodes []string) (streams []traffic) {
	n.t.Helper()
	pods := slices.DeleteFunc(slices.Clone(n.spec.Endpoints), func(e *spec.Endpoint) bool { return !slices.Contains(nodes, e.Node) })
	for _, f := range fs {
		for i, from := range pods {
			for _, to := range pods[i+1:] {
				streams = append(streams, n.ping(from.Name, address(to, f).String()))
			}
		}
		streams = append(streams, n.ping(pods[0].Name, outside(f).String()))
	}
	return streams
}

// expectUnbroken fails if any packet of the streams was lost.
func (n *network) expectUnbroken(streams []traffic) {
	n.t.Helper()
	for _, s := range streams {
		if sent, received := s.stop(); received < sent-1 { // the last may be on its way
			n.t.Errorf("%s: %d sent, %d came back", s.name, sent, received)
		}
	}
}

// manual is the page that tells how nodes are taken over, without what is about
// Kubernetes.
func manual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/flannel.md")
	if err != nil {
		t.Fatal(err)
	}
	text, _, found := strings.Cut(string(b), "\n## Node by node on Kubernetes\n")
	if !found {
		t.Fatal("the page has no part about Kubernetes any more")
	}
	return text
}

// commands are those of the manual's shell blocks that mention a word, each in
// a line.
func commands(t *testing.T, word string) (lines []string) {
	t.Helper()
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(manual(t), -1) {
		if strings.Contains(block[1], word) {
			lines = append(lines, strings.Split(strings.TrimSpace(strings.ReplaceAll(block[1], "sudo ", "")), "\n")...)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("the manual has no command with %q", word)
	}
	return lines
}

// flannelRules is in the names of flannel's chains and tables.
var flannelRules = regexp.MustCompile(`.*(FLANNEL-|flannel-ipv).*`)

// takeOver does on a node what the manual says.
func (n *network) takeOver(node string, flannel *peers.Flannel, c takeOver) {
	n.t.Helper()
	if n.spec.Network.Backend.Type == spec.VXLAN && len(c.pods) > 1 {
		mtu := commands(n.t, "mtu")[0]
		for _, x := range n.plan(node, n.spec, reconcile.ModeApply).Conflicts {
			if !strings.Contains(x.Remedy, mtu) {
				n.t.Errorf("the remedy is not %q: %+v", mtu, x)
			}
		}
		n.sh(node, mtu)
	}
	for _, command := range commands(n.t, "polder") {
		switch command {
		case "polder migrate check": // which says what the plan is
			n.expectTakeOver(n.plan(node, n.spec, reconcile.ModeApply), c)
		case "systemctl disable --now flanneld":
			flannel.Stop(node)
		case "polder apply":
			n.apply(node, n.spec, reconcile.ModeApply)
		case "polder migrate clean":
			n.clean(node)
		default:
			n.t.Fatalf("no idea how to do %q here", command)
		}
	}
	if rules := flannelRules.FindString(n.sh(node, "nft list ruleset")); rules != "" {
		n.t.Errorf("%s has rules of flannel's left: %s", node, rules)
	}
	n.expectInSync(node)
}

// clean removes what flannel has left on a node.
func (n *network) clean(node string) {
	n.t.Helper()
	err := n.lab.Node(node).Do(func() (err error) {
		c, err := remains.Open(n.spec, node, func(context.Context) (int, error) { return 0, nil })
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		plan, err := c.Plan(context.Background())
		if err != nil {
			return err
		}
		if len(plan.Conflicts) > 0 {
			return fmt.Errorf("in the way: %+v", plan.Conflicts)
		}
		c.Apply(context.Background(), plan, func(_ int, failed error) { err = errors.Join(err, failed) })
		return err
	})
	if err != nil {
		n.t.Fatalf("cleaning %s: %v", node, err)
	}
}

// takeOver is a cluster that flannel makes on the first of its nodes.
type takeOver struct {
	rules peers.Rules
	nodes []string
	cluster
}

// isNews says of a change that is no stamp whether it adds what flannel does
// not have: rules and next hops, what leads to nodes that it does not know, and
// with direct routing a VTEP that receives what has another way back.
func (c takeOver) isNews(x change.Change) bool {
	switch x.Kind {
	case "nexthop", "table", "chain", "set", "map", "counter":
		return x.Action == change.Create
	case "route", "neighbour", "fdb":
		return x.Action == change.Create && len(c.nodes) < len(nodeNames)
	default:
		return strings.HasSuffix(x.Name, ".rp_filter") && strings.Contains(c.backend, "direct_routing")
	}
}

// TestTakeOverFromFlannel: polder takes a cluster over from real flannel, node
// after node. The plans stamp and add, nothing else, and traffic between all
// pods and to the outside loses no packet, neither then nor when a node goes
// back to flannel. A node that flannel never knew joins.
func TestTakeOverFromFlannel(t *testing.T) {
	const devices = `device = { ipv4 = "flannel.1", ipv6 = "flannel-v6.1" }`
	for name, c := range map[string]takeOver{
		"vxlan":          {peers.IPTables, nodeNames, cluster{backend: `backend "vxlan" { ` + devices + ` }`, pods: ipv4}},
		"vxlan dual":     {peers.NFTables, nodeNames[:2], cluster{backend: `backend "vxlan" { ` + devices + ` }`, pods: dual}},
		"direct routing": {peers.NFTables, nodeNames, cluster{backend: "backend \"vxlan\" {\n  direct_routing = true\n  " + devices + "\n}", pods: ipv4}},
		"host-gw dual":   {peers.IPTables, nodeNames[:2], cluster{backend: backendHostGW, pods: dual, oneLink: true}},
	} {
		t.Run(name, func(t *testing.T) {
			n := up(t, c.cluster)
			flannel := n.flannel(c.rules, c.nodes)
			streams := n.mesh(c.pods, c.nodes)
			if n.spec.Network.Backend.Type == spec.VXLAN {
				n.spec = n.withVTEPs(c.cluster, c.nodes)
			}
			for _, node := range c.nodes {
				gateway := n.sh(node, "cat /sys/class/net/cni0/address")
				n.takeOver(node, flannel, c)
				if now := n.sh(node, "cat /sys/class/net/cni0/address"); now != gateway {
					t.Errorf("%s: the bridge was %s and is %s: its pods do not know that", node, gateway, now)
				}
			}
			for _, node := range nodeNames[len(c.nodes):] {
				n.apply(node, n.spec, reconcile.ModeApply)
				for _, f := range c.pods {
					streams = append(streams, n.ping("p11", address(n.endpoint("p31"), f).String()))
				}
			}
			flannel.Start("n1")
			n.apply("n1", nil, reconcile.ModeRelease)
			n.takeOver("n1", flannel, c)
			n.expectUnbroken(streams)
		})
	}
}

// expectTakeOver fails on a plan that does anything but put stamps on what
// flannel left and add what is news.
func (n *network) expectTakeOver(p *reconcile.Plan, c takeOver) {
	n.t.Helper()
	for _, x := range p.Conflicts {
		n.t.Errorf("in the way: %+v", x)
	}
	for _, x := range p.Changes {
		if x.Action != change.Adopt && !c.isNews(x) {
			n.t.Errorf("the plan does more than stamp and add: %+v", x)
		}
	}
	if s := change.Summarize(p.Changes); s.Adopt < 5 {
		n.t.Errorf("adopted %d objects: want links, routes and addresses among them", s.Adopt)
	}
}

// expectInSync fails if there is anything left to do on a node.
func (n *network) expectInSync(node string) {
	n.t.Helper()
	if p := n.plan(node, n.spec, reconcile.ModeApply); len(p.Changes) > 0 || len(p.Conflicts) > 0 {
		n.t.Errorf("on %s there is left: %+v %+v", node, p.Changes, p.Conflicts)
	}
}

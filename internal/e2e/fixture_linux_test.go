package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

// families are the address families of a cluster under test.
type families []spec.Family

var (
	ipv4 = families{spec.IPv4}
	ipv6 = families{spec.IPv6}
	dual = families{spec.IPv4, spec.IPv6}
)

func (fs families) String() string {
	if len(fs) == 2 {
		return "dual"
	}
	return fs[0].String()
}

// list writes the values of the families as an HCL list.
func (fs families) list(v4, v6 string) string {
	var quoted []string
	for _, f := range fs {
		quoted = append(quoted, fmt.Sprintf("%q", map[spec.Family]string{spec.IPv4: v4, spec.IPv6: v6}[f]))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// cluster writes a spec and the lab that it runs in: three nodes with two pods
// each, and a host outside. The third node is behind the router, or, where
// oneLink is set, beside the others.
type cluster struct {
	backend string // the block
	pods    families
	oneLink bool
	network string            // more of the network block
	nodes   map[string]string // more of node blocks
	more    string            // blocks of the spec's
}

const (
	backendVXLAN  = `backend "vxlan" {}`
	backendDirect = `backend "vxlan" { direct_routing = true }`
	backendHostGW = `backend "host-gw" {}`
)

func (c cluster) text() (specText, labText string) {
	var s, l strings.Builder
	network := c.network
	if network == "" {
		network = "masquerade {}"
	}
	fmt.Fprintf(&s, "cluster = \"e2e\"\nnetwork {\n  pod_cidrs = %s\n  %s\n  %s\n}\n",
		c.pods.list("10.244.0.0/16", "fd00:10:244::/48"), c.backend, network)
	fmt.Fprintf(&l, "link \"lan\" {}\nlink \"far\" {}\nlink \"wan\" {}\nrouter \"r1\" {\n")
	for i, link := range []string{"lan", "far", "wan"} {
		fmt.Fprintf(&l, "  link %q { addresses = %s }\n", link, c.pods.list(fmt.Sprintf("192.0.%d.1/24", 2+i), fmt.Sprintf("2001:db8:%d::1/64", 2+i)))
	}
	fmt.Fprintf(&l, "}\nhost \"outside\" {\n  link \"wan\" {\n    addresses = %s\n    gateways = %s\n  }\n}\n",
		c.pods.list("192.0.4.99/24", "2001:db8:4::99/64"), c.pods.list("192.0.4.1", "2001:db8:4::1"))
	for i := 1; i <= 3; i++ {
		name, link, third := fmt.Sprintf("n%d", i), "lan", 2
		if i == 3 && !c.oneLink {
			link, third = "far", 3
		}
		fmt.Fprintf(&s, "node %q {\n  addresses = %s\n  subnets = %s\n  %s\n}\n", name,
			c.pods.list(fmt.Sprintf("192.0.%d.1%d/24", third, i), fmt.Sprintf("2001:db8:%d::1%d/64", third, i)),
			c.pods.list(fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%d::/64", i)), c.nodes[name])
		fmt.Fprintf(&l, "node %q {\n  link %q { gateways = %s }\n}\n", name, link,
			c.pods.list(fmt.Sprintf("192.0.%d.1", third), fmt.Sprintf("2001:db8:%d::1", third)))
		for k := 1; k <= 2; k++ {
			fmt.Fprintf(&s, "endpoint \"p%d%d\" {\n  node = %q\n  interface = \"veth%d\"\n  labels = { pod = \"p%d%d\" }\n  addresses = %s\n}\n", i, k, name, k, i, k,
				c.pods.list(fmt.Sprintf("10.244.%d.%d", i, 4+k), fmt.Sprintf("fd00:10:244:%d::%d", i, 4+k)))
		}
	}
	return s.String() + c.more, l.String()
}

// network is a lab with the spec that it was made from.
type network struct {
	t    *testing.T
	lab  *lab.Lab
	spec *spec.Spec
	dir  string
}

var nodeNames = []string{"n1", "n2", "n3"}

// load parses a spec's text and fails the test if that is not possible.
func load(t *testing.T, text string) *spec.Spec {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "polder.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, diags := spec.Load(dir, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatalf("%v\nin\n%s", diags, text)
	}
	return config.Spec
}

// up makes the cluster's lab. Nothing of polder's is there yet.
func up(t *testing.T, c cluster) *network {
	t.Helper()
	lab.Require(t)
	specText, labText := c.text()
	sp := load(t, specText)
	topology, diags := lab.ParseTopology("test.lab.hcl", []byte(labText))
	if diags.HasErrors() {
		t.Fatalf("%v\nin\n%s", diags, labText)
	}
	l, err := lab.Up(context.Background(), topology, sp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &network{t, l, sp, t.TempDir()}
	for _, node := range nodeNames {
		n.carried(node)
	}
	return n
}

// carried waits until the kernel has said of every link that is up that it has
// a carrier, which it does some time after both of its ends are up
// (link_watch.c), and until no address is tentative. A VTEP and the loopback
// have no state to wait for.
func (n *network) carried(node string) {
	n.t.Helper()
	n.until(node, `[ -z "$(ip -o link show up | grep -v ' state UP \| state UNKNOWN '; ip -6 addr show tentative)" ]`)
}

// options are those of one node.
func (n *network) options(node string, sp *spec.Spec) reconcile.Options {
	return reconcile.Options{Spec: sp, Node: node, StateDir: filepath.Join(n.dir, node)}
}

// plan plans on a node.
func (n *network) plan(node string, sp *spec.Spec, mode reconcile.Mode) (plan *reconcile.Plan) {
	n.t.Helper()
	err := n.lab.Node(node).Do(func() (err error) {
		p, err := reconcile.Open(n.options(node, sp))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		plan, err = p.Plan(context.Background(), mode)
		return err
	})
	if err != nil {
		n.t.Fatalf("planning on %s: %v", node, err)
	}
	return plan
}

// apply plans and applies on a node, and expects everything to succeed and the
// kernel to match afterwards.
func (n *network) apply(node string, sp *spec.Spec, mode reconcile.Mode) (plan *reconcile.Plan) {
	n.t.Helper()
	err := n.lab.Node(node).Do(func() (err error) {
		a, err := reconcile.OpenApplier(n.options(node, sp))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.Close()) }()
		if plan, err = a.Plan(context.Background(), mode); err != nil {
			return err
		}
		if len(plan.Conflicts) > 0 {
			return fmt.Errorf("conflicts: %+v", plan.Conflicts)
		}
		result, err := a.Apply(context.Background(), plan, func(reconcile.Outcome) {})
		if err != nil {
			return err
		}
		for _, o := range result.Failed() {
			err = errors.Join(err, o.Err)
		}
		if len(result.Remaining) > 0 {
			err = errors.Join(err, fmt.Errorf("remaining: %+v", result.Remaining))
		}
		return err
	})
	if err != nil {
		n.t.Fatalf("applying on %s: %v", node, err)
	}
	return plan
}

// applyAll makes every node match, and the pods have the bridge's MTU.
func (n *network) applyAll() {
	n.t.Helper()
	for _, node := range nodeNames {
		n.apply(node, n.spec, reconcile.ModeApply)
	}
	if err := n.lab.SyncPodMTU(); err != nil {
		n.t.Fatal(err)
	}
}

// sh runs a shell command on a machine and returns what it prints.
func (n *network) sh(machine, command string) string {
	n.t.Helper()
	var out bytes.Buffer
	err := n.lab.Machine(machine).Do(func() error {
		cmd := exec.Command("sh", "-ec", command)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	if err != nil {
		n.t.Fatalf("on %s: %s: %v\n%s", machine, command, err, out.String())
	}
	return out.String()
}

// endpoint is a pod of the spec.
func (n *network) endpoint(name string) *spec.Endpoint {
	for _, e := range n.spec.Endpoints {
		if e.Name == name {
			return e
		}
	}
	n.t.Fatalf("no endpoint %s", name)
	return nil
}

// address is a pod's address of a family.
func address(e *spec.Endpoint, f spec.Family) netip.Addr {
	for _, a := range e.Addresses {
		if spec.FamilyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// outside is the address of the host outside.
func outside(f spec.Family) netip.Addr {
	if f == spec.IPv4 {
		return netip.MustParseAddr("192.0.4.99")
	}
	return netip.MustParseAddr("2001:db8:4::99")
}

// snapshot is what ip, bridge, nft and /proc say of a node.
func (n *network) snapshot(node string) string {
	n.t.Helper()
	return n.sh(node, `
		ip -o link show | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/ qlen.*link/ link/; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]* / /' | sort
		ip -o addr show | sed 's/^[0-9]*: //' | grep -v 'inet6 fe80' | sort
		(ip nexthop; ip route show table all; ip -6 route show table all) | sed 's/ linkdown//' | grep -v 'fe80\|ff00::/8\|multicast' | sort
		ip neigh show nud permanent | sort
		bridge fdb show | grep -v '33:33\|01:00:5e\|master' | sort
		cd /proc/sys/net
		grep -s . ipv4/ip_forward ipv6/conf/*/forwarding ipv6/conf/*/accept_ra ipv6/conf/*/disable_ipv6 bridge/bridge-nf-call-* || true`) + n.ruleset(node)
}

// settled is the snapshot of a node once the kernel has made the routes to its
// IPv6 addresses, which it does a moment after the write (addrconf.c,
// addrconf_dad_work).
func (n *network) settled(node string) string {
	n.t.Helper()
	n.until(node, "[ $(ip -6 addr show scope global | grep -c inet6) = $(ip -6 route show table local type local | grep -vc 'fe80\\|^local ::1 ') ]")
	return n.snapshot(node)
}

// ruleset is what nft lists, without counters. It lists objects in the order
// in which they were made, which means nothing: they are sorted.
func (n *network) ruleset(node string) string {
	n.t.Helper()
	var objects []string
	var table string
	for _, block := range strings.Split(n.sh(node, "nft list ruleset | sed 's/counter packets [0-9]* bytes [0-9]*/counter/; s/^\\t\\tpackets [0-9]* bytes [0-9]*/\\t\\tpackets/; s/^table .*/\\n&\\n/'"), "\n\n") {
		if header := strings.TrimSpace(block); strings.HasPrefix(header, "table") {
			table = header
			continue
		}
		objects = append(objects, table+"\n"+strings.TrimSuffix(strings.TrimSpace(block), "\n}"))
	}
	slices.Sort(objects)
	return strings.Join(objects, "\n")
}

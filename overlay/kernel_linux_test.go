package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

// host is node n1 in a namespace of its own.
type host struct {
	t  *testing.T
	ns *lab.Namespace
}

// newHost makes a host with eth0 on the test's link.
func newHost(t *testing.T) host {
	t.Helper()
	lab.Require(t)
	ns, err := lab.NewNamespace("n1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	h := host{t, ns}
	h.sh("ip link add eth0 address 02:00:00:00:01:01 type veth peer name wire address 02:00:00:00:01:02")
	h.sh("ip link set wire up")
	h.sh("ip link set eth0 up")
	for _, f := range spec.Families {
		h.sh(fmt.Sprintf("ip addr add %s/%d dev eth0 nodad", nodeAddress(f, 1), linkPrefix(f).Bits()))
	}
	return h
}

func (h host) sh(command string) string {
	h.t.Helper()
	var out []byte
	err := h.ns.Do(func() (err error) {
		out, err = exec.Command("sh", "-ec", command).CombinedOutput()
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// plan reads the kernel and plans for the spec's n1; nil plans for nothing.
func (h host) plan(sp *spec.Spec) (plan Plan) {
	h.t.Helper()
	err := h.ns.Do(func() error {
		r, err := OpenReader()
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		node := &spec.Node{}
		if sp == nil {
			sp = &spec.Spec{}
		} else {
			node = sp.Node("n1")
		}
		observed, err := r.Read(context.Background(), ScopeOf(sp, node))
		if err != nil {
			return err
		}
		desired, err := Compile(sp, node, observed.Facts)
		if err != nil {
			return err
		}
		var paths []string
		for path := range desired.Sysctls {
			paths = append(paths, path)
		}
		if observed.State.Sysctls, err = r.Sysctls(paths); err != nil {
			return err
		}
		plan = Diff(desired, observed.State)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return plan
}

// apply carries a plan out and fails the test if any operation fails.
func (h host) apply(plan Plan) {
	h.t.Helper()
	err := h.ns.Do(func() error {
		w, err := OpenWriter("")
		if err != nil {
			return err
		}
		defer func() { _ = w.Close() }()
		w.Apply(context.Background(), plan.Ops, func(i int, err error) {
			if err != nil {
				h.t.Errorf("operation %d: %v", i, err)
			}
		})
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// converge applies the spec and expects the next plan to be empty.
func (h host) converge(sp *spec.Spec) Plan {
	h.t.Helper()
	plan := h.plan(sp)
	if len(plan.Conflicts) > 0 {
		h.t.Fatalf("conflicts: %+v", plan.Conflicts)
	}
	h.apply(plan)
	h.expectEmpty(h.plan(sp))
	return plan
}

func (h host) expectEmpty(plan Plan) {
	h.t.Helper()
	if len(plan.Ops)+len(plan.Conflicts) > 0 {
		h.t.Fatalf("the plan is not empty:\n%s", plan.text())
	}
}

// snapshot is what an outside witness sees of the whole namespace, without the
// carrier, which takes its time. Sysctls are
// not in it: what they were is for reconcile to remember.
func (h host) snapshot() string {
	return h.sh(`ip -o link show | grep -v ' lo:' | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/ qlen.*link/ link/; s/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]* / /' | sort
		ip -o addr show | sed 's/^[0-9]*: //' | grep -v 'inet6 fe80' | sort
		(ip nexthop; ip route; ip -6 route) | grep -v ^fe80 | sed 's/ linkdown//'
		ip neigh show nud permanent | sort; bridge fdb show | grep -v '33:33\|01:00:5e\|master' | sort`)
}

var shapes = []struct {
	name    string
	cluster cluster
}{
	{"vxlan IPv4", cluster{nodes: 3, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}},
	{"vxlan IPv6", cluster{nodes: 3, families: onlyIPv6, underlay: onlyIPv6, backend: vxlan()}},
	{"vxlan dual", cluster{nodes: 3, families: dual, underlay: dual, backend: vxlan()}},
	{"vxlan dual over IPv4", cluster{nodes: 3, families: dual, underlay: onlyIPv4, backend: vxlan()}},
	{"direct IPv4", cluster{nodes: 3, families: onlyIPv4, underlay: onlyIPv4, backend: direct()}},
	{"direct dual", cluster{nodes: 3, families: dual, underlay: dual, backend: direct()}},
	{"host-gw IPv6", cluster{nodes: 3, families: onlyIPv6, underlay: onlyIPv6, backend: hostGW()}},
	{"host-gw dual", cluster{nodes: 4, families: dual, underlay: dual, backend: hostGW()}},
	{"small mtu", cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan(), mtu: 1300}},
	{"other bridge", cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan(), bridge: "br9"}},
	{"other subnets", cluster{nodes: 3, families: dual, underlay: dual, backend: vxlan(), first: 20}},
	{"alone", cluster{nodes: 1, families: dual, underlay: dual, backend: vxlan()}},
}

func TestApplyConverges(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			h := newHost(t)
			before := h.snapshot()
			h.converge(s.cluster.spec())
			h.converge(nil)
			if after := h.snapshot(); after != before {
				t.Errorf("destroy left something:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// TestTransitions applies every ordered pair of specs: the second after the
// first must give what the second gives alone.
func TestTransitions(t *testing.T) {
	alone := map[string]string{}
	for _, s := range shapes {
		h := newHost(t)
		h.converge(s.cluster.spec())
		alone[s.name] = h.snapshot()
	}
	h := newHost(t)
	before := "nothing"
	become := func(to int) {
		plan := h.converge(shapes[to].cluster.spec())
		if got := h.snapshot(); got != alone[shapes[to].name] {
			t.Fatalf("%s, then %s: state differs from %s alone:\n%s\nwant\n%s\nplan\n%s", before, shapes[to].name, shapes[to].name, got, alone[shapes[to].name], plan.text())
		}
		before = shapes[to].name
	}
	// From each to every later one, and back.
	for i := range shapes {
		for j := i + 1; j < len(shapes); j++ {
			become(i)
			become(j)
		}
		become(i)
	}
}

func TestAdoptWhatFlannelLeaves(t *testing.T) {
	h := newHost(t)
	sp := cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan()}.spec()
	sp.Network.Backend.Device = spec.PerFamily[string]{IPv4: "flannel.1", IPv6: "flannel-v6.1"}
	n1, n2 := sp.Nodes[0], sp.Nodes[1]
	for i, n := range sp.Nodes {
		n.VTEPMAC.IPv4 = spec.MAC{0x12, 0xc6, 0x65, 0x89, 0xb4, byte(i)}
		n.VTEPMAC.IPv6 = spec.MAC{0x16, 0xc6, 0x65, 0x89, 0xb4, byte(i)}
	}
	h.sh(`echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
		ip link add cni0 type bridge; ip link set cni0 mtu 1430 up
		ip link add veth1 type veth peer name p1; ip link set veth1 mtu 1430 master cni0 up; ip link set p1 up
		ip link set veth1 type bridge_slave hairpin on
		ip addr add 10.244.1.1/24 dev cni0; ip addr add fd00:10:244:1::1/64 dev cni0 nodad
		ip link add flannel.1 address ` + n1.VTEPMAC.IPv4.String() + ` mtu 1450 type vxlan id 1 dstport 8472 local 192.0.2.11 dev eth0 nolearning
		ip link add flannel-v6.1 address ` + n1.VTEPMAC.IPv6.String() + ` mtu 1430 type vxlan id 1 dstport 8472 local 2001:db8::11 dev eth0 nolearning
		echo 0 >/proc/sys/net/ipv6/conf/cni0/accept_ra
		echo 0 >/proc/sys/net/ipv6/conf/flannel.1/accept_ra; echo 0 >/proc/sys/net/ipv6/conf/flannel-v6.1/accept_ra
		ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up
		ip addr add fd00:10:244:1::/128 dev flannel-v6.1 nodad; ip link set flannel-v6.1 up
		ip neigh replace 10.244.2.0 lladdr ` + n2.VTEPMAC.IPv4.String() + ` dev flannel.1 nud permanent
		bridge fdb replace ` + n2.VTEPMAC.IPv4.String() + ` dev flannel.1 dst 192.0.2.12 self permanent
		ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
		ip neigh replace fd00:10:244:2:: lladdr ` + n2.VTEPMAC.IPv6.String() + ` dev flannel-v6.1 nud permanent
		bridge fdb replace ` + n2.VTEPMAC.IPv6.String() + ` dev flannel-v6.1 dst 2001:db8::12 self permanent
		ip route replace fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink`)
	mac := h.sh("cat /sys/class/net/cni0/address 2>/dev/null || ip -br link show cni0 | awk '{print $3}'")
	plan := h.converge(sp)
	for _, op := range plan.Ops {
		switch {
		case op.Change.Action == change.Adopt:
		case op.Change.Action == change.Create && op.Change.Kind == "nexthop":
		case op.Change.Kind == "sysctl" && strings.Contains(op.Change.Name, "bridge-nf"):
		default:
			t.Errorf("the plan does more than stamp and add: %+v", op.Change)
		}
	}
	if after := h.sh("ip -br link show cni0 | awk '{print $3}'"); !strings.Contains(mac, strings.TrimSpace(after)) {
		t.Errorf("the bridge's MAC went from %s to %s", mac, after)
	}
	// The adopted bridge's address is pinned: a port with a lower one comes.
	h.sh("ip link add veth2 address 00:00:00:00:00:01 type veth peer name p2; ip link set veth2 master cni0 mtu 1430 up; ip link set veth2 type bridge_slave hairpin on")
	h.expectEmpty(h.plan(sp))
}

// TestPortThatIsGone: a workload that ends between the plan and the apply is no
// failure.
func TestPortThatIsGone(t *testing.T) {
	h := newHost(t)
	sp := cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}.spec()
	h.converge(sp)
	h.sh("ip link add v1 type veth peer name p1; ip link set v1 master cni0 up")
	plan := h.plan(sp)
	if len(plan.Ops) != 1 || plan.Ops[0].Change.Kind != "port" {
		t.Fatalf("the plan is\n%s", plan.text())
	}
	h.sh("ip link del v1")
	h.apply(plan)
	h.expectEmpty(h.plan(sp))
}

// TestRefusedLinkTakesNothingAway: where a link of another name cannot be made,
// the one that was there, and what leads over it, stays until it can.
func TestRefusedLinkTakesNothingAway(t *testing.T) {
	c := cluster{nodes: 3, families: dual, underlay: dual, backend: vxlan()}
	for name, test := range map[string]struct {
		foreign string
		alter   func(*cluster)
		clear   string
	}{
		"VTEP":              {"ip link add vx9 type vxlan id 9 dstport 4790 local 192.0.2.11 dev eth0", func(c *cluster) { c.backend.Device.IPv4 = "vx9" }, "ip link del vx9"},
		"VTEP, another VNI": {"ip link add vx9 type vxlan id 9 dstport 4790 local 192.0.2.11 dev eth0", func(c *cluster) { c.backend.Device.IPv4, c.backend.VNI = "vx9", 5 }, "ip link del vx9"},
		"bridge":            {"ip link add br9 type veth peer name p9", func(c *cluster) { c.bridge = "br9" }, "ip link del br9"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.sh("ip link add v1 type veth peer name p1; ip link set v1 up")
			h.converge(c.spec())
			h.sh("ip link set v1 master cni0; ip link set v1 type bridge_slave hairpin on")
			h.sh(test.foreign)
			before := h.sh("ip link show master cni0; ip -4 addr show scope global; ip -4 route; ip -4 neigh show nud permanent; bridge fdb show dev polder.1")
			changed := c
			test.alter(&changed)
			plan := h.plan(changed.spec())
			if len(plan.Conflicts) == 0 {
				t.Fatal("no conflict")
			}
			h.apply(plan)
			if after := h.sh("ip link show master cni0; ip -4 addr show scope global; ip -4 route; ip -4 neigh show nud permanent; bridge fdb show dev polder.1"); after != before {
				t.Errorf("by\n%s\nit became\n%s\nand was\n%s", plan.text(), after, before)
			}
			if again := h.plan(changed.spec()); len(again.Ops) > 0 {
				t.Errorf("a second plan is not empty:\n%s", again.text())
			}
			h.sh(test.clear)
			h.converge(changed.spec())
		})
	}
}

// TestHostWithoutAddresses: where nothing in the namespace shows yet that the
// kernel keeps the protocol of an address, the second plan is empty all the same.
func TestHostWithoutAddresses(t *testing.T) {
	h := newHost(t)
	h.sh("ip addr flush dev lo; ip link set lo down; ip -6 addr flush scope link")
	h.converge(cluster{nodes: 2, families: onlyIPv4, underlay: onlyIPv4, backend: vxlan()}.spec())
}

// TestForget deletes the neighbours of addresses, and those only, and none that was
// made for good.
func TestForget(t *testing.T) {
	h := newHost(t)
	h.sh("ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0 nud stale; ip neigh add 192.0.2.78 lladdr 02:00:00:00:00:78 dev eth0 nud stale")
	h.sh("ip neigh add 2001:db8::77 lladdr 02:00:00:00:00:77 dev eth0 nud stale; ip neigh add 192.0.2.79 lladdr 02:00:00:00:00:79 dev eth0 nud permanent")
	err := h.ns.Do(func() error {
		w, err := OpenWriter("")
		if err != nil {
			return err
		}
		defer func() { _ = w.Close() }()
		var addresses []netip.Addr
		for _, a := range []string{"192.0.2.77", "2001:db8::77", "192.0.2.79", "192.0.2.80"} {
			addresses = append(addresses, netip.MustParseAddr(a))
		}
		if err := w.Forget("eth0", addresses); err != nil {
			return err
		}
		if err := w.Forget("nosuch", addresses); err == nil {
			return errors.New("there is no such link, and nothing is said")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	left := h.sh("ip neigh show nud all | grep :00:7 | cut -d ' ' -f 1 | sort")
	if left != "192.0.2.78\n192.0.2.79\n" {
		t.Errorf("left are %q", left)
	}
}

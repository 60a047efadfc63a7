package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/spec"
)

// flannelNode is node n1 of a cluster that real flannel has made, beside n2 on
// its link and n3 behind a router.
type flannelNode struct {
	t       *testing.T
	lab     *lab.Lab
	spec    *spec.Spec
	flannel *peers.Flannel
	file    string // the spec that polder import wrote
}

// families writes one list for IPv4, or for both families.
func families(dual bool, v4, v6 string) string {
	if dual {
		return fmt.Sprintf("[%q, %q]", v4, v6)
	}
	return fmt.Sprintf("[%q]", v4)
}

// flannelNetwork makes the cluster. more is of the network block.
func flannelNetwork(t *testing.T, backend string, dual, oneLink bool, rules peers.Rules) *flannelNode {
	t.Helper()
	lab.Require(t)
	var text, topology strings.Builder
	fmt.Fprintf(&text, "cluster = \"edge\"\nnetwork {\n  pod_cidrs = %s\n  masquerade {}\n  %s\n}\n", families(dual, "10.244.0.0/16", "fd00:10:244::/48"), backend)
	fmt.Fprintf(&topology, "link \"lan\" {}\nlink \"far\" {}\nrouter \"r1\" {\n  link \"lan\" { addresses = %s }\n  link \"far\" { addresses = %s }\n}\n",
		families(dual, "192.0.2.1/24", "2001:db8:2::1/64"), families(dual, "192.0.3.1/24", "2001:db8:3::1/64"))
	nodes := map[string]*lab.Namespace{}
	for i := 1; i <= 3; i++ {
		link, third := "lan", 2
		if i == 3 && !oneLink {
			link, third = "far", 3
		}
		name := fmt.Sprintf("n%d", i)
		nodes[name] = nil
		fmt.Fprintf(&text, "node %q {\n  addresses = %s\n  subnets = %s\n}\n", name,
			families(dual, fmt.Sprintf("192.0.%d.1%d/24", third, i), fmt.Sprintf("2001:db8:%d::1%d/64", third, i)),
			families(dual, fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%d::/64", i)))
		fmt.Fprintf(&topology, "node %q {\n  link %q { gateways = %s }\n}\n", name, link,
			families(dual, fmt.Sprintf("192.0.%d.1", third), fmt.Sprintf("2001:db8:%d::1", third)))
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "cluster.hcl")
	write(t, source, text.String())
	config, diags := spec.Load(source, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	top, diags := lab.ParseTopology("test.lab.hcl", []byte(topology.String()))
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
	f := &flannelNode{t: t, lab: l, spec: config.Spec, file: filepath.Join(dir, "imported.hcl")}
	for name := range nodes {
		nodes[name] = l.Node(name)
		f.settle(name)
	}
	f.flannel = peers.StartFlannel(t, config.Spec, nodes, rules)
	// What the CNI plugins flannel and bridge make for the first pod.
	f.sh("n1", `. /run/flannel/subnet.env
		ip link add cni0 mtu $FLANNEL_MTU type bridge
		echo 0 >/proc/sys/net/ipv6/conf/cni0/accept_ra; ip link set cni0 up
		for gateway in $FLANNEL_SUBNET $FLANNEL_IPV6_SUBNET; do ip addr add $gateway dev cni0; done
		ip link add veth0 mtu $FLANNEL_MTU type veth peer name pod0
		ip link set pod0 up; ip link set veth0 up master cni0; bridge link set dev veth0 hairpin on`)
	f.settle("n1")
	return f
}

func (f *flannelNode) sh(node, command string) string {
	f.t.Helper()
	out, err := f.lab.Node(node).Command(f.t.Context(), "sh", "-ec", command).CombinedOutput()
	if err != nil {
		f.t.Fatalf("on %s: %s: %v\n%s", node, command, err, out)
	}
	return string(out)
}

// settle waits until no address is tentative and no link waits for its carrier.
func (f *flannelNode) settle(node string) {
	f.t.Helper()
	for strings.TrimSpace(f.sh(node, "ip -6 addr show tentative; ip -o link show up | grep -v ' state UP \\| state UNKNOWN ' || true")) != "" {
		runtime.Gosched()
	}
}

// polder runs a command on n1 and returns its status and what it prints.
func (f *flannelNode) polder(args ...string) (status int, out string) {
	f.t.Helper()
	cmd := f.lab.Node("n1").Command(f.t.Context(), append([]string{"polder", "--node", "n1"}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		f.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// check runs migrate check, wants a status, and returns the model and what
// people see. Nothing on the node may be another afterwards; the rules in
// flannel's own tables aside, which flannel looks after meanwhile.
func (f *flannelNode) check(want int, file string) (m view.Migration, text string) {
	f.t.Helper()
	const state = "ip -d link; ip addr; ip route; ip -6 route; ip nexthop; bridge fdb; ip neigh show nud permanent; nft list tables; nft list ruleset inet; nft list ruleset bridge; sysctl -a 2>/dev/null | grep 'forward\\|rp_filter\\|accept_ra' || true"
	// What the kernel counts and clocks on its own.
	counters := regexp.MustCompile(`counter packets \d+ bytes \d+|expires \d+sec|(valid|preferred)_lft \d+sec|_timer +[\d.]+`)
	before := f.sh("n1", state)
	status, text := f.polder("migrate", "check", "--spec", file)
	if status != want {
		f.t.Errorf("status %d, want %d:\n%s", status, want, text)
	}
	again, encoded := f.polder("migrate", "check", "--json", "--spec", file)
	if err := json.Unmarshal([]byte(encoded), &m); err != nil || again != status {
		f.t.Fatalf("status %d: %v: %s", again, err, encoded)
	}
	if after := f.sh("n1", state); counters.ReplaceAllString(after, "") != counters.ReplaceAllString(before, "") {
		f.t.Errorf("the check changed something:\n%s", diff.Diff("before", []byte(before), "after", []byte(after)))
	}
	return m, text
}

// with is the imported spec with a text replaced by another.
func (f *flannelNode) with(old, text string) string {
	f.t.Helper()
	b, err := os.ReadFile(f.file)
	if err != nil {
		f.t.Fatal(err)
	}
	changed := regexp.MustCompile(old).ReplaceAllString(string(b), text)
	if changed == string(b) {
		f.t.Fatalf("there is no %q in\n%s", old, b)
	}
	file := filepath.Join(f.t.TempDir(), "changed.hcl")
	write(f.t, file, changed)
	return file
}

// expectImported compares the imported spec with what flannel was given: all
// but the names of the other nodes is there.
func (f *flannelNode) expectImported() {
	f.t.Helper()
	config, diags := spec.Load(f.file, spec.Inputs{})
	if diags.HasErrors() {
		f.t.Fatal(diags)
	}
	got, want := config.Spec, f.spec
	if g, w := fmt.Sprint(got.Network.Pods), fmt.Sprint(want.Network.Pods); g != w {
		f.t.Errorf("pods %s, want %s", g, w)
	}
	if g, w := got.Network.Backend, want.Network.Backend; g.Type != w.Type || g.VNI != w.VNI || g.Port != w.Port || g.DirectRouting != w.DirectRouting || g.Device != w.Device {
		f.t.Errorf("backend %+v, want %+v", g, w)
	}
	if got.Network.Masquerade == nil || !got.Network.Bridge.HairpinMode || got.Node("n1") == nil {
		f.t.Errorf("masquerade %v, bridge %+v, node %v", got.Network.Masquerade, got.Network.Bridge, got.Node("n1"))
	}
	for _, w := range want.Nodes {
		i := slices.IndexFunc(got.Nodes, func(n *spec.Node) bool { return fmt.Sprint(n.Subnets) == fmt.Sprint(w.Subnets) })
		if i < 0 {
			f.t.Errorf("there is no node with %v", w.Subnets)
			continue
		}
		g := got.Nodes[i]
		for k, a := range w.Addresses {
			if g.Addresses[k].Addr != a.Addr {
				f.t.Errorf("node %s has %+v, want %+v", g.Name, g.Addresses, w.Addresses)
			}
		}
		for _, family := range spec.Families {
			device := want.Network.Backend.Device.Get(family)
			if _, on := w.Address(family); !on || want.Network.Backend.Type != spec.VXLAN {
				continue
			}
			mac := strings.TrimSpace(f.sh(w.Name, "cat /sys/class/net/"+device+"/address"))
			if direct := want.Network.Backend.DirectRouting && w.Name == "n2"; g.VTEPMAC.Get(family).String() != mac && !direct {
				f.t.Errorf("node %s has the VTEP %s, and %s is %s", g.Name, g.VTEPMAC.Get(family), device, mac)
			}
		}
	}
}

// TestMigrateFromFlannel: on a node that real flannel runs on, polder writes a
// spec by which it would take the node over without changing anything, says so,
// and says what is wrong with one that does not fit.
func TestMigrateFromFlannel(t *testing.T) {
	const devices = `device = { ipv4 = "flannel.1", ipv6 = "flannel-v6.1" }`
	for name, test := range map[string]struct {
		backend       string
		dual, oneLink bool
		rules         peers.Rules
		left          []string // flannel's rules
	}{
		"vxlan":        {`backend "vxlan" { device = { ipv4 = "flannel.1" } }`, false, false, peers.IPTables, []string{"chain ip filter FLANNEL-FWD", "chain ip nat FLANNEL-POSTRTG"}},
		"vxlan direct": {"backend \"vxlan\" {\n  vni = 7\n  port = 4789\n  direct_routing = true\n  " + strings.ReplaceAll(devices, ".1", ".7") + "\n}", true, false, peers.NFTables, []string{"table ip flannel-ipv4", "table ip6 flannel-ipv6"}},
		"host-gw dual": {`backend "host-gw" {}`, true, true, peers.NFTables, []string{"table ip flannel-ipv4", "table ip6 flannel-ipv6"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := flannelNetwork(t, test.backend, test.dual, test.oneLink, test.rules)
			if status, out := f.polder("import", "flannel", "--live", "--cluster", "edge", "-o", f.file); status != 0 || !strings.HasPrefix(out, "Written to ") {
				t.Fatalf("status %d: %s", status, out)
			}
			if status, out := f.polder("import", "flannel", "-o", f.file); status != 1 || !strings.Contains(out, "file exists") {
				t.Errorf("a spec was overwritten: status %d: %s", status, out)
			}
			polder(t, "fmt", "--check", f.file)
			f.expectImported()
			if test.dual && f.spec.Network.Backend.Type == spec.VXLAN {
				if m, text := f.check(1, f.file); m.Verdict != view.VerdictConflict || !strings.Contains(text, "ip link set dev cni0 mtu 1430") {
					t.Errorf("the bridge has the MTU of IPv4: %+v\n%s", m, text)
				}
				f.sh("n1", "ip link set dev cni0 mtu 1430")
			}
			m, text := f.check(0, f.file)
			if m.Verdict != view.VerdictClean || !strings.HasPrefix(text, "Clean. Node n1 ") || len(m.Adopted) < 5 {
				t.Errorf("verdict %s:\n%s", m.Verdict, text)
			}
			var left []string
			for _, r := range m.Remains.Rules {
				left = append(left, r.Name)
			}
			if !slices.Equal(left, test.left) {
				t.Errorf("of flannel's rules stay %q, want %q", left, test.left)
			}
			if len(m.Remains.Processes) != 1 || !strings.Contains(text, "is running, pid ") {
				t.Errorf("flanneld is running: %+v\n%s", m.Remains.Processes, text)
			}
			f.misfits()
			f.switchOver(left)
		})
	}
}

// misfits checks specs that do not fit the node.
func (f *flannelNode) misfits() {
	f.t.Helper()
	const last = `(?s)node "node-[^"]*" \{[^{}]*(\{[^{}]*\}[^{}]*)?\}\n$`
	lost := f.with(last, "")
	if f.spec.Network.Backend.Type == spec.HostGW {
		// Not on a device of polder's: the route stays where it is, and polder
		// drops what comes from no node of the spec.
		if m, text := f.check(2, lost); m.Verdict != view.VerdictDisturbs || len(m.Disturbs) != 0 || len(m.Remains.Routes) != 2 || !strings.Contains(text, "route 10.244.3.0/24 via 192.0.2.13 ") {
			f.t.Errorf("n3 is not in the spec: %s %+v\n%s", m.Verdict, m.Remains.Routes, text)
		}
		return
	}
	if _, text := f.check(0, f.with(`  masquerade \{\}\n`, "")); !strings.Contains(text, "the spec has no masquerade block") {
		f.t.Errorf("without masquerade:\n%s", text)
	}
	m, text := f.check(2, lost)
	route := func(c change.Change) bool {
		return c.Kind == "route" && c.Action == change.Delete && c.Name == "10.244.3.0/24"
	}
	if m.Verdict != view.VerdictDisturbs || !slices.ContainsFunc(m.Disturbs, route) || !strings.Contains(text, "nodes that the spec has not") {
		f.t.Errorf("n3 is not in the spec: %s\n%s", m.Verdict, text)
	}
	for old, change := range map[string][2]string{
		`vni( *)= \d+`:                       {`vni = 2`, "not 2"},
		`port( *)= \d+`:                      {`port = 4242`, "dstport is "},
		`  bridge \{`:                        {"  mtu = 1300\n  bridge {", "mtu is "},
		`(?s)(node "n1".*?)[0-9a-f:]{14}" }`: {`${1}00:00:00:00:07" }`, "address is "},
	} {
		m, text := f.check(1, f.with(old, change[0]))
		if m.Verdict != view.VerdictConflict || !strings.Contains(text, change[1]) {
			f.t.Errorf("with %s: %s\n%s", change[0], m.Verdict, text)
		}
	}
}

// switchOver switches the node, cleans up, and checks again. Meanwhile nobody else's
// rules change.
func (f *flannelNode) switchOver(left []string) {
	f.t.Helper()
	others := f.others()
	if status, out := f.polder("migrate", "clean", "--check", "--spec", f.file); status != 1 || !strings.Contains(out, "it is running, pid ") {
		f.t.Errorf("flanneld is running: status %d: %s", status, out)
	}
	f.flannel.Stop("n1")
	if m, text := f.check(0, f.file); len(m.Remains.Processes) != 0 || strings.Contains(text, "is running") {
		f.t.Errorf("flanneld was stopped: %+v\n%s", m.Remains.Processes, text)
	}
	before := f.sh("n1", "nft list tables; nft list chains")
	if status, out := f.polder("migrate", "clean", "--auto-approve", "--spec", f.file); status != 1 || !strings.Contains(out, "it does not match the spec") {
		f.t.Errorf("polder does not masquerade yet: status %d: %s", status, out)
	}
	if after := f.sh("n1", "nft list tables; nft list chains"); after != before {
		f.t.Errorf("it removed something: %s", diff.Diff("before", []byte(before), "after", []byte(after)))
	}
	if status, out := f.polder("apply", "--auto-approve", "--spec", f.file); status != 0 {
		f.t.Fatalf("status %d: %s", status, out)
	}
	m, text := f.check(0, f.file)
	if m.Verdict != view.VerdictNothing || !strings.Contains(text, "matches the spec") || len(m.Remains.Rules) != len(left) || !strings.Contains(text, "polder migrate clean") {
		f.t.Errorf("the node was switched: %s", text)
	}
	f.clean()
	if now := f.others(); now != others {
		f.t.Errorf("others' rules are another: %s", diff.Diff("before", []byte(others), "after", []byte(now)))
	}
	if m, text = f.check(0, f.file); len(m.Remains.Rules)+len(m.Remains.Links) != 0 {
		f.t.Errorf("the rules were removed: %s", text)
	}
	if found := f.sh("n1", "nft list ruleset; iptables-save; ip6tables-save"); regexp.MustCompile("FLANNEL|flannel-ipv").MatchString(found) {
		f.t.Errorf("there is still something of flannel's in\n%s", found)
	}
}

// others makes rules of the user's and of Docker's where flannel has some, and says
// what they are now.
func (f *flannelNode) others() string {
	f.t.Helper()
	return f.sh("n1", `
		iptables -C FORWARD -s 192.0.2.77 -j ACCEPT 2>/dev/null || {
			iptables -A FORWARD -s 192.0.2.77 -j ACCEPT; iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; iptables -A DOCKER-USER -j RETURN
			iptables -t nat -N DOCKER; iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -m comment --comment "flanneld" -j MASQUERADE
		}
		nft list tables | grep -v 'flannel\|polder'; iptables-save | grep -v 'FLANNEL-\|^#\|^:' `)
}

// clean removes what flannel has left, when it is asked to and told yes. A device
// and a route of it are there, too, that the spec does not want.
func (f *flannelNode) clean() {
	f.t.Helper()
	f.sh("n1", "ip link add flannel.99 type vxlan id 99 dstport 9999 local 192.0.2.11 dev eth0; ip link set flannel.99 up; ip route add 10.244.99.0/24 via 192.0.2.12; ip route add 10.244.98.0/24 via 192.0.2.12 proto static")
	f.settle("n1")
	status, text := f.polder("migrate", "clean", "--check", "--spec", f.file)
	if status != 2 || !strings.Contains(text, "What polder will remove from node n1 of what others have left:") || !strings.Contains(text, `- link "flannel.99"`) || !strings.Contains(text, `- route "10.244.99.0/24"`) {
		f.t.Errorf("status %d: %s", status, text)
	}
	if status, text = f.polder("migrate", "clean", "--spec", f.file); status != 1 || !strings.Contains(text, "Clean cancelled. Nothing was changed.") {
		f.t.Errorf("nobody said yes: status %d: %s", status, text)
	}
	if status, again := f.polder("migrate", "clean", "--check", "--spec", f.file); status != 2 || !strings.Contains(again, "- link") {
		f.t.Errorf("nobody said yes: status %d: %s", status, again)
	}
	if status, text = f.polder("migrate", "clean", "--auto-approve", "--spec", f.file); status != 0 || !strings.Contains(text, "Clean complete. 0 added, 0 changed, ") {
		f.t.Errorf("status %d: %s", status, text)
	}
	if status, text = f.polder("migrate", "clean", "--check", "--spec", f.file); status != 0 || !strings.HasPrefix(text, "No changes. Nothing on node n1 is left of flannel or Felix ") {
		f.t.Errorf("status %d: %s", status, text)
	}
	if routes := f.sh("n1", "ip route; ip link"); strings.Contains(routes, "10.244.99.0/24") || strings.Contains(routes, "flannel.99") || !strings.Contains(routes, "10.244.98.0/24") {
		f.t.Errorf("routes and links are\n%s", routes)
	}
	f.sh("n1", "ip route del 10.244.98.0/24")
}

package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/spec"
)

// hybrid is nodes of Kubernetes: on some flanneld makes the pod network, on
// others polder.
type hybrid struct {
	*network
	fabric
	api     *kubetest.API
	flannel *peers.KubeFlannel
	wires   map[string]*kubetest.Forwarder // to the API server
	daemons map[string]*process.Process
	meter   *meter
	pods    []party
}

// fabric is what the pod network is made of.
type fabric struct {
	backend  string // the block
	rules    peers.Rules
	families []spec.Family
	oneLink  bool // all nodes are on it; otherwise two are behind a router
	shown    bool // in docs/flannel.md
}

// apiServer is where each node finds the API server.
var apiServer = netip.MustParseAddrPort("127.0.0.1:6443")

const hybridNodes = 5

// list writes the values of the families as an HCL list.
func (f fabric) list(v4, v6 string) string {
	var quoted []string
	for _, value := range f.of(v4, v6) {
		quoted = append(quoted, fmt.Sprintf("%q", value))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// of are the values of the families.
func (f fabric) of(v4, v6 string) (values []string) {
	for _, family := range f.families {
		values = append(values, map[spec.Family]string{spec.IPv4: v4, spec.IPv6: v6}[family])
	}
	return values
}

// place is the link of a node, and the third number of its addresses.
func (f fabric) place(i int) (link string, third int) {
	if i%2 == 1 && i > 1 && !f.oneLink {
		return "far", 3
	}
	return "lan", 2
}

func (f fabric) address(i int) []string {
	_, third := f.place(i)
	return f.of(fmt.Sprintf("192.0.%d.1%d", third, i), fmt.Sprintf("2001:db8:%d::1%d", third, i))
}

func (f fabric) subnets(i int) []string {
	return f.of(fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:10:244:%d::/64", i))
}

// text is the spec of a lab, where nodes are in the file, and the lab's topology.
func (f fabric) text() (specText, labText string) {
	var s, l strings.Builder
	fmt.Fprintf(&s, "cluster = \"e2e\"\n%s", f.networkBlock(""))
	fmt.Fprintf(&l, "link \"lan\" {}\nlink \"far\" {}\nlink \"wan\" {}\nrouter \"r1\" {\n")
	for i, link := range []string{"lan", "far", "wan"} {
		fmt.Fprintf(&l, "  link %q { addresses = %s }\n", link, f.list(fmt.Sprintf("192.0.%d.1/24", 2+i), fmt.Sprintf("2001:db8:%d::1/64", 2+i)))
	}
	fmt.Fprintf(&l, "}\nhost \"outside\" {\n  link \"wan\" {\n    addresses = %s\n    gateways = %s\n  }\n}\n",
		f.list("192.0.4.99/24", "2001:db8:4::99/64"), f.list("192.0.4.1", "2001:db8:4::1"))
	for i := 1; i <= hybridNodes; i++ {
		link, third := f.place(i)
		fmt.Fprintf(&s, "node \"n%d\" {\n  addresses = %s\n  subnets = [\"%s\"]\n}\n", i,
			f.list(fmt.Sprintf("192.0.%d.1%d/24", third, i), fmt.Sprintf("2001:db8:%d::1%d/64", third, i)), strings.Join(f.subnets(i), `", "`))
		fmt.Fprintf(&l, "node \"n%d\" {\n  link %q { gateways = %s }\n}\n", i, link, f.list(fmt.Sprintf("192.0.%d.1", third), fmt.Sprintf("2001:db8:%d::1", third)))
	}
	return s.String(), l.String()
}

// networkBlock is the one that polder makes as flannel does.
func (f fabric) networkBlock(more string) string {
	return fmt.Sprintf("network {\n  pod_cidrs = %s\n  %s\n  masquerade {}\n%s}\n", f.list("10.244.0.0/16", "fd00:10:244::/48"), f.backend, more)
}

// newHybrid makes a cluster of nodes that have not joined.
func newHybrid(t *testing.T, f fabric) *hybrid {
	t.Helper()
	specText, labText := f.text()
	h := &hybrid{
		network: up(t, labText, specText), fabric: f, api: kubetest.Start(t),
		wires: map[string]*kubetest.Forwarder{}, daemons: map[string]*process.Process{}, meter: newMeter(t),
	}
	nodes := map[string]*lab.Namespace{}
	for i := 1; i <= hybridNodes; i++ {
		n := h.Node(nodeName(i))
		wire, err := kubetest.Forward(n, apiServer, h.api.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = wire.Close() })
		nodes[n.Name()], h.wires[n.Name()] = n, wire
	}
	file := filepath.Join(t.TempDir(), "flannel.hcl")
	if err := os.WriteFile(file, []byte(specText), 0o600); err != nil {
		t.Fatal(err)
	}
	config, diags := spec.Load(file, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	h.flannel = peers.NewKubeFlannel(t, h.api, apiServer, config.Spec.Network, nodes, f.rules)
	return h
}

// underFlannel makes a cluster of three nodes on which flanneld runs, and two that
// have not joined, with two pods on each that has.
func underFlannel(t *testing.T, f fabric) *hybrid {
	t.Helper()
	h := newHybrid(t, f)
	for i := 1; i <= 3; i++ {
		h.join(i)
		h.flannel.Start(nodeName(i))
	}
	h.flannel.Await()
	for i := 1; i <= 3; i++ {
		for k := 1; k <= 2; k++ {
			h.pod(i, fmt.Sprintf("p%d%d", i, k), h.flannelList(i))
		}
	}
	return h
}

// join makes the object of a node.
func (h *hybrid) join(i int) {
	h.Helper()
	h.api.Node(h, nodeName(i), h.address(i), h.subnets(i))
}

// flannelList is the chain of plugins on a node where flanneld has run, as
// kube-flannel.yml has it. The plugin flannel itself is in no registry of modules:
// in its place stands what it would call, by what flanneld wrote for it
// (flannel_linux.go of github.com/flannel-io/cni-plugin v1.9.1-flannel3).
func (h *hybrid) flannelList(i int) *kubetest.CNI {
	h.Helper()
	node := nodeName(i)
	env := map[string]string{}
	for line := range strings.Lines(h.sh(node, "cat /run/flannel/subnet.env")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[key] = value
	}
	var ranges, routes []string
	for _, prefix := range h.of("FLANNEL_", "FLANNEL_IPV6_") {
		gateway, err := netip.ParsePrefix(env[prefix+"SUBNET"])
		if err != nil {
			h.Fatal(err)
		}
		ranges = append(ranges, fmt.Sprintf(`[{"subnet": %q}]`, gateway.Masked()))
		routes = append(routes, fmt.Sprintf(`{"dst": %q}`, env[prefix+"NETWORK"]))
	}
	return kubetest.NewCNI(h, h.Node(node), fmt.Sprintf(`{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
		{
			"type": "bridge", "hairpinMode": true, "isDefaultGateway": true, "isGateway": true, "ipMasq": %t, "mtu": %s,
			"ipam": {"type": "host-local", "dataDir": "/run/cni/networks", "ranges": [%s], "routes": [%s]}
		},
		{"type": "portmap", "capabilities": {"portMappings": true}}
	]}`, env["FLANNEL_IPMASQ"] != "true", env["FLANNEL_MTU"], strings.Join(ranges, ", "), strings.Join(routes, ", ")))
}

// polderList is the chain of plugins that the daemon on a node wrote.
func (h *hybrid) polderList(i int) *kubetest.CNI {
	h.Helper()
	d := h.daemons[nodeName(i)]
	var list []byte
	for begin := time.Now(); list == nil; d.Pause() {
		var err error
		if list, err = os.ReadFile(filepath.Join(h.cniDir(i), "10-polder.conflist")); err != nil && time.Since(begin) > process.Endurance {
			h.Fatal(err)
		}
	}
	own := strings.Replace(string(list), `"type": "host-local",`, `"type": "host-local", "dataDir": "/run/cni/networks",`, 1)
	return kubetest.NewCNI(h, h.Node(nodeName(i)), own, h.cniDir(i))
}

func (h *hybrid) cniDir(i int) string { return filepath.Join(h.dir, nodeName(i)+"-cni") }

func nodeName(i int) string { return fmt.Sprintf("n%d", i) }

// run starts polder on a node with a spec and returns when that is in sync.
func (h *hybrid) run(i int, text string, flags ...string) *process.Process {
	h.Helper()
	d := h.daemon(nodeName(i), text, append(flags, "--kubeconfig", h.api.Kubeconfig(h, h.api.Config(), apiServer))...)
	h.daemons[nodeName(i)] = d
	d.Start()
	d.Ready()
	d.Content("the start")
	return d
}

// expectNoPlan fails if there is anything left to do on a node where polder runs.
func (h *hybrid) expectNoPlan(i int) {
	h.Helper()
	if status, out := h.command(i, "plan", "--detailed-exitcode", "--spec", h.daemons[nodeName(i)].File); status != 0 {
		h.Errorf("there is left to do on n%d: status %d\n%s", i, status, out)
	}
}

// pod makes one as a runtime does that has bound it to a node, and has it be one
// end of what the meter counts, with all others.
func (h *hybrid) pod(i int, name string, cni *kubetest.CNI) party {
	h.Helper()
	sandbox, err := lab.NewNamespace(name)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = sandbox.Close() })
	p := kubetest.Pod{Namespace: "default", Name: name, Node: nodeName(i), Labels: map[string]string{"pod": name}, Phase: corev1.PodPending}
	object := h.api.Pod(h, p)
	result, err := cni.Add(h.Context(), kubetest.Attachment{Namespace: "default", Name: name, Sandbox: sandbox, Ports: []kubetest.PortMapping{}})
	if err != nil {
		h.Fatalf("attaching %s: %v", name, err)
	}
	m := party{name: name, namespace: sandbox}
	var ips []string
	for _, ip := range result.IPs {
		address, _ := netip.AddrFromSlice(ip.Address.IP)
		m.addresses = append(m.addresses, address.Unmap())
		ips = append(ips, address.Unmap().String())
	}
	h.api.SetPod(h, object, corev1.PodRunning, ips...)
	h.pods = append(h.pods, m)
	return m
}

// podOf is one of a node.
func (h *hybrid) podOf(i int) party {
	h.Helper()
	at := slices.IndexFunc(h.pods, func(p party) bool { return strings.HasPrefix(p.name, fmt.Sprintf("p%d", i)) })
	if at < 0 {
		h.Fatalf("n%d has no pods", i)
	}
	return h.pods[at]
}

// measure begins to count between all pods, and from them and the nodes to others.
func (h *hybrid) measure() {
	h.Helper()
	for i, a := range h.pods {
		h.measureWith(a, h.pods[i+1:])
	}
	outside := party{"outside", h.Machine("outside"), nil}
	for _, a := range h.of("192.0.4.99", "2001:db8:4::99") {
		outside.addresses = append(outside.addresses, netip.MustParseAddr(a))
	}
	for _, f := range h.families {
		for i := range 3 {
			h.meter.flow(h.pods[2*i], outside, f)
			// As a kubelet, or a pod in the network of its node.
			node := party{name: nodeName(i + 1), namespace: h.Node(nodeName(i + 1))}
			h.meter.flow(node, h.pods[2*i+1], f)
			h.meter.flow(node, h.pods[(2*i+3)%6], f)
			h.meter.connect(h.pods[2*i], h.pods[(2*i+2)%6], f)
		}
	}
}

// measureWith is between one pod and others.
func (h *hybrid) measureWith(a party, others []party) {
	h.Helper()
	for _, b := range others {
		h.meter.between(a, b, h.families...)
	}
}

// dials expects that all pods can open connections to a pod, and it to them.
func (h *hybrid) dials(to party) {
	h.Helper()
	for _, other := range h.pods {
		if other.name == to.name {
			continue
		}
		for _, f := range h.families {
			for _, way := range [][2]party{{other, to}, {to, other}} {
				if err := opens(way[0], way[1], f, patience); err != nil {
					h.Errorf("%s to %s over %s: %v", way[0].name, way[1].name, f, err)
				}
			}
		}
	}
}

// command runs one of polder's on a node and returns its exit status and what it
// prints.
func (h *hybrid) command(i int, args ...string) (status int, out string) {
	h.Helper()
	node := nodeName(i)
	argv := append([]string{h.polder}, args...)
	argv = append(argv, "--node", node, "--state-dir", h.stateDir(node))
	cmd := h.Node(node).Command(h.Context(), argv...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

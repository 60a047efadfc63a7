package kube

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/peers"
	"github.com/poldernet/polder/spec"
)

var allRules = flag.Bool("migration.all", false, "have TestMigration take over each fabric with either kind of flanneld's rules")

var (
	ipv4 = []spec.Family{spec.IPv4}
	ipv6 = []spec.Family{spec.IPv6}
	dual = []spec.Family{spec.IPv4, spec.IPv6}
)

// fabrics are what flannel makes and polder takes over, each with the kind of rules
// that it is tested with where not all are.
var fabrics = map[string]fabric{
	"vxlan":               {backend: `backend "vxlan" {}`, rules: peers.IPTables, families: ipv4, shown: true},
	"vxlan ipv6":          {backend: `backend "vxlan" {}`, rules: peers.NFTables, families: ipv6},
	"vxlan dual":          {backend: `backend "vxlan" {}`, rules: peers.NFTables, families: dual},
	"direct routing dual": {backend: "backend \"vxlan\" {\n    direct_routing = true\n  }", rules: peers.IPTables, families: dual},
	"host-gw dual":        {backend: `backend "host-gw" {}`, rules: peers.NFTables, families: dual, oneLink: true},
}

// TestMigration: nodes of Kubernetes go from flanneld to polder one by one, and
// back. Meanwhile all pods talk to each other, to nodes and to the outside, and not
// one packet is lost. Nodes and pods that come in between are reached, on either
// kind.
func TestMigration(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(fabrics)) {
		for _, rules := range []peers.Rules{peers.IPTables, peers.NFTables} {
			f := fabrics[name]
			if f.rules != rules && !*allRules {
				continue
			}
			f.rules = rules
			t.Run(fmt.Sprintf("%s, %s", name, rules), func(t *testing.T) { migrate(t, f) })
		}
	}
}

func migrate(t *testing.T, f fabric) {
	t.Helper()
	h := underFlannel(t, f)
	h.measure()
	h.meter.during("nothing happens")
	h.toPolder(1)
	h.come(1, "p13", h.polderList(1))
	h.come(1, "p14", h.flannelList(1)) // the list of before may still be there
	h.come(2, "p23", h.flannelList(2))
	// A node that joins with flanneld hears of polder's, and is heard there.
	h.meter.during("n4 joins with flanneld")
	h.join(4)
	h.flannel.Start("n4")
	h.flannel.Await()
	h.awaitRoutes(1, 4)
	h.come(4, "p41", h.flannelList(4))
	h.toPolder(2)
	h.meter.during("n5 joins with polder")
	h.join(5)
	h.start(5)
	h.flannel.Await()
	for _, peer := range []int{1, 2} {
		h.awaitRoutes(peer, 5)
	}
	h.come(5, "p51", h.polderList(5))
	h.toPolder(3)
	h.toPolder(4)
	for i := 1; i <= hybridNodes; i++ {
		h.toFlannel(i)
	}
	h.flannel.Await()
	for _, p := range h.pods {
		h.dials(p)
	}
	h.meter.expectNothingLost()
	// What polder left flanneld can take away, as what it made itself.
	h.flannel.Stop("n5")
	if err := h.api.Client.CoreV1().Nodes().Delete(t.Context(), "n5", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.flannel.Await()
}

// come makes a pod, which must reach all others and be reached by them at once.
func (h *hybrid) come(i int, name string, cni *kubetest.CNI) {
	h.Helper()
	h.meter.during("%s comes to n%d", name, i)
	m := h.pod(i, name, cni)
	h.dials(m)
	h.measureWith(m, h.pods[:2])
}

// shared is the spec of the network that polder and flannel share.
func (h *hybrid) shared() string {
	return "cluster = \"e2e\"\nkubernetes {}\n" + h.networkBlock("  compat = \"flannel\"\n  bridge { hairpin_mode = true }\n")
}

// start has polder make the pod network on a node, and returns when that is in
// sync.
func (h *hybrid) start(i int) *process.Process {
	h.Helper()
	return h.run(i, h.shared(), "--cni-conf-dir", h.cniDir(i), "--cni-bin-dir", h.cniDir(i))
}

// toPolder has polder take a node over, as docs/flannel.md says.
func (h *hybrid) toPolder(i int) {
	h.Helper()
	node := nodeName(i)
	h.meter.during("%s goes to polder", node)
	if strings.Contains(h.backend, "vxlan") && slices.Contains(h.families, spec.IPv6) {
		h.sh(node, "ip link set dev cni0 mtu 1430")
	}
	before := h.sh(node, vteps)
	h.expectClean(i)
	h.flannel.Stop(node)
	d := h.start(i)
	h.expectStamps(d)
	if h.shown && i == 1 {
		_, out := h.command(i, "events", "--all", "--no-follow")
		h.shows("2026-", out)
	}
	if after := h.sh(node, vteps); after != before {
		h.Errorf("%s had\n%sand has\n%s", node, before, after)
	}
	h.expectNoPlan(i)
	h.dials(h.podOf(i))
}

// expectClean looks, before a node is switched, at what that will do: by the spec of
// all nodes, and by those that are made from what flanneld has made here, which say the
// same, with the nodes of the cluster and with those that are to be seen. flanneld runs
// on.
func (h *hybrid) expectClean(i int) {
	h.Helper()
	dir := h.TempDir()
	ours, imported, seen := filepath.Join(dir, "polder.hcl"), filepath.Join(dir, "flannel.hcl"), filepath.Join(dir, "seen.hcl")
	if err := os.WriteFile(ours, []byte(h.shared()), 0o600); err != nil {
		h.Fatal(err)
	}
	for file, flags := range map[string][]string{imported: nil, seen: {"--kubernetes=false"}} {
		if status, out := h.command(i, append([]string{"import", "flannel", "--cluster", "e2e", "-o", file}, flags...)...); status != 0 {
			h.Fatalf("importing on n%d: status %d\n%s", i, status, out)
		}
	}
	if status, out := h.command(i, "migrate", "check", "--spec", seen); status != 0 || !strings.HasPrefix(out, "Clean.") {
		h.Errorf("the check on n%d by what is to be seen: status %d\n%s", i, status, out)
	}
	for _, file := range []string{imported, ours} {
		status, out := h.command(i, "migrate", "check", "--spec", file, "--kubeconfig", h.api.Kubeconfig(h, h.api.Config(), apiServer))
		if status != 0 || !strings.Contains(out, "left out.\nClean.") {
			h.Errorf("the check on n%d by %s: status %d\n%s", i, file, status, out)
		}
		if h.shown && i == 1 {
			h.shows("Of the files and", out)
		}
	}
}

// shows holds the block of docs/flannel.md that begins so to what was printed. A line
// "..." stands for any.
func (h *hybrid) shows(begin, printed string) {
	h.Helper()
	page, err := os.ReadFile("../../../docs/flannel.md")
	if err != nil {
		h.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "```text\n"+begin)
	if !found {
		h.Fatalf("the page shows nothing that begins with %q", begin)
	}
	block, _, _ = strings.Cut(begin+block, "```")
	// When it was, how long it took, and IDs that are computed from other names.
	varies := regexp.MustCompile(`\d{4}-\d\d-\d\d [\d:.]+|[\d.]+ ms|id \d+`)
	printed = varies.ReplaceAllString(printed, "")
	for line := range strings.Lines(varies.ReplaceAllString(block, "")) {
		if line == "...\n" {
			continue
		}
		_, rest, found := strings.Cut("\n"+printed, "\n"+line)
		if !found {
			h.Fatalf("the page shows\n%snext, and printed was\n%s", line, printed)
		}
		printed = rest
	}
}

// vteps prints those of a node, with what peers know of them.
const vteps = "for d in /sys/class/net/flannel*; do [ ! -e $d ] || echo ${d##*/} $(cat $d/address $d/ifindex $d/mtu); done"

// expectStamps fails if what the daemon did at its start is more than to put marks
// on what is there, and to add what flannel does not have.
func (h *hybrid) expectStamps(d *process.Process) {
	h.Helper()
	lines, _, _ := d.Logbook.Since(0)
	adopted := 0
	for _, l := range lines {
		switch {
		case l.Event != "changed":
		case l.Action == "adopt":
			adopted++
		case l.Action == "create":
		case l.Kind == "sysctl" && strings.HasSuffix(l.Name, ".rp_filter") && strings.Contains(h.backend, "direct_routing"):
			// A VTEP receives what has another way back.
		default:
			h.Errorf("the switch of %s does more than stamp and add: %s", d.Node.Name(), l.Text)
		}
	}
	if adopted < 5 {
		h.Errorf("on %s %d objects were adopted: want links, routes and addresses among them", d.Node.Name(), adopted)
	}
}

// toFlannel has flanneld take a node back.
func (h *hybrid) toFlannel(i int) {
	h.Helper()
	node := nodeName(i)
	h.meter.during("%s goes back to flanneld", node)
	before, d := h.sh(node, vteps), h.daemons[node]
	// Whoever comes first: a DaemonSet says nothing about the other.
	if i%2 == 0 {
		h.flannel.Start(node)
	}
	if status, out := h.command(i, "release", "--auto-approve"); status != 0 {
		h.Fatalf("releasing %s: status %d\n%s", node, status, out)
	}
	if err := d.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		h.Fatal(err)
	}
	select {
	case <-d.Gone:
	case <-time.After(process.Endurance):
		d.Stuck("end")
	}
	if i%2 == 1 {
		h.flannel.Start(node)
	}
	if after := h.sh(node, vteps); after != before {
		h.Errorf("%s had\n%sand has\n%s", node, before, after)
	}
	if left := h.sh(node, "ip route show proto 87; ip -6 route show proto 87; ip nexthop; nft list tables | grep polder || true; ip -d link | grep alias || true"); left != "" {
		h.Errorf("polder left on %s:\n%s", node, left)
	}
}

// awaitRoutes waits until polder on a node has routes to the subnets of another.
func (h *hybrid) awaitRoutes(i, peer int) {
	h.Helper()
	for _, subnet := range h.subnets(peer) {
		h.sh(nodeName(i), fmt.Sprintf("until (ip route show proto 87; ip -6 route show proto 87) | grep -q '^%s '; do :; done", subnet))
	}
}

package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
)

// dualSpec is what the lab of one dual-stack node is made of.
const dualSpec = `cluster = "e2e"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
}
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:2::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
`

// TestCheckAsRun: what `polder migrate check` says that a switch does is what `polder
// run` does then, also where a node of the cluster has no address of a family; and what
// `polder run` cannot do, the check cannot either.
func TestCheckAsRun(t *testing.T) {
	n := up(t, oneNode, dualSpec)
	api := kubetest.Start(t)
	api.Node(t, "n1", []string{"192.0.2.11", "2001:db8:2::11"}, []string{"10.244.1.0/24", "fd00:10:244:1::/64"})
	api.Node(t, "n2", []string{"192.0.2.12"}, []string{"10.244.2.0/24", "fd00:10:244:2::/64"})
	at := netip.MustParseAddrPort("127.0.0.1:6443")
	forwarder, err := kubetest.Forward(n.Node("n1"), at, api.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = forwarder.Close() })
	kubeconfig := api.Kubeconfig(t, api.Config(), at)
	n.sh("n1", "ip link set dev eth0 mtu 1400")
	text := func(more string) string {
		return "cluster = \"e2e\"\nkubernetes {}\nnetwork {\n  pod_cidrs = [\"10.244.0.0/16\", \"fd00:10:244::/48\"]\n" + more + "}\n"
	}
	d := n.daemon("n1", text("mtu = 1350\n"), "--kubeconfig", kubeconfig)
	check := func() (string, error) {
		out, err := n.Node("n1").Command(t.Context(), n.polder, "migrate", "check", "--json", "--spec", d.File, "--node", "n1",
			"--state-dir", n.stateDir("n1"), "--kubeconfig", kubeconfig).CombinedOutput()
		return string(out), err
	}
	const misfit = "mtu 1350 does not fit the underlay: eth0 has MTU 1400, and the backend takes 70 of it, which leaves 1330"
	if out, err := check(); err == nil || !strings.Contains(out, misfit) {
		t.Errorf("the check of an MTU that does not fit: %v\n%s", err, out)
	}
	d.Start()
	d.Await(0, "that the MTU does not fit", func(l process.Line) bool { return strings.Contains(l.Err, misfit) })
	d.Kill()

	d.Write(text(""))
	out, err := check()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	type object struct {
		Action, Kind, Name string
		Detail             bool // the log has none
	}
	var model struct {
		Adopted, Added, Enforced, Switches, Disturbs []object
		Warnings                                     []string
	}
	_, encoded, _ := strings.Cut(out, "left out.\n")
	if err := json.Unmarshal([]byte(encoded), &model); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if warned := strings.Join(model.Warnings, "\n"); !strings.Contains(warned, "left out of the pod network: n2: IPv6: ") {
		t.Errorf("warnings are %q", model.Warnings)
	}
	planned := slices.Concat(model.Adopted, model.Added, model.Enforced, model.Switches, model.Disturbs)
	if !slices.Contains(planned, object{"create", "link", "polder-v6.1", false}) {
		t.Errorf("IPv6 goes by another device: %v", planned)
	}
	d.Start()
	d.Ready()
	lines, _, _ := d.Logbook.Since(0)
	var done []object
	for _, l := range lines {
		if l.Event == "changed" {
			done = append(done, object{l.Action, l.Kind, l.Name, false})
		}
	}
	planned = slices.DeleteFunc(planned, func(o object) bool { return o.Detail })
	for _, list := range [][]object{planned, done} {
		slices.SortFunc(list, func(a, b object) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	if !slices.Equal(planned, done) {
		t.Errorf("the check says\n%v\nand done was\n%v", planned, done)
	}
}

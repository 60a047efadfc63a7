package kube

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/peers"
)

var driftTable = flag.String("drift", "", "wait for flanneld, too, and write what became of it into this document")

// flannelPatience is how long flanneld has to follow, at least.
const flannelPatience = 15 * time.Second

// The annotations of flannel's that drift is about (pkg/subnet/kube/annotations.go
// in flannel v0.28.9).
const (
	annotation  = "flannel.alpha.coreos.com/"
	backendData = annotation + "backend-data"
	backendV6   = annotation + "backend-v6-data"
)

// announced are nodes that do not run: what polder on n1 and flanneld on n2 know
// of them is in their Node objects.
type announced struct {
	*hybrid
	annotations map[int]map[string]string
}

func vtepData(mac string) string { return fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, mac) }

// announce makes a node with subnets, as flanneld has published it.
func (a *announced) announce(i int, subnets []string) {
	a.Helper()
	if a.annotations[i] == nil {
		mac := fmt.Sprintf("02:00:00:00:00:0%d", i)
		a.annotations[i] = map[string]string{
			annotation + "kube-subnet-manager": "true", annotation + "backend-type": "vxlan",
			backendData: vtepData(mac), backendV6: vtepData(mac),
			annotation + "public-ip": a.address(i)[0], annotation + "public-ipv6": a.address(i)[1],
		}
	}
	a.api.Node(a, nodeName(i), a.address(i), subnets)
	a.annotate(i, a.annotations[i])
}

// annotate changes annotations of a node; "" stands for none.
func (a *announced) annotate(i int, with map[string]string) {
	a.Helper()
	values := map[string]any{}
	for key, value := range with {
		values[key] = value
		if value == "" {
			values[key] = nil
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": values}})
	if err == nil {
		_, err = a.api.Client.CoreV1().Nodes().Patch(a.Context(), nodeName(i), types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		a.Fatal(err)
	}
}

func (a *announced) withdraw(i int) {
	a.Helper()
	if err := a.api.Client.CoreV1().Nodes().Delete(a.Context(), nodeName(i), metav1.DeleteOptions{}); err != nil {
		a.Fatal(err)
	}
}

// sees is whether a command succeeds on a node.
func (a *announced) sees(i int, command string) bool {
	a.Helper()
	return strings.Contains(a.sh(nodeName(i), "("+command+") >/dev/null && echo so || true"), "so")
}

// clusterDrift is something that happens in the cluster, after which each node has
// something to do.
type clusterDrift struct {
	what   string
	happen func(a *announced)
	done   func(a *announced, i int) bool // on a node
}

var clusterDrifts = []clusterDrift{
	{
		"a peer was made anew with another pod CIDR while the API server was away, and what happened meanwhile is forgotten there",
		func(a *announced) {
			for _, i := range []int{1, 2} {
				if err := a.wires[nodeName(i)].Refuse(); err != nil {
					a.Fatal(err)
				}
			}
			a.withdraw(3)
			a.announce(3, []string{"10.244.33.0/24", "fd00:10:244:33::/64"})
			// Who watched must list again, and sees a node that is another one.
			if err := errors.Join(a.api.Etcd.Compact(a.Context()), a.api.Kill(), a.api.Start(a.Context())); err != nil {
				a.Fatal(err)
			}
			for _, i := range []int{1, 2} {
				if err := a.wires[nodeName(i)].Open(); err != nil {
					a.Fatal(err)
				}
			}
		},
		func(a *announced, i int) bool {
			return a.sees(i, "ip route | grep '^10.244.33.0/24' && ip -6 route | grep '^fd00:10:244:33::/64' && ! (ip route; ip -6 route) | grep '^10.244.3.0/24\\|^fd00:10:244:3::/64'")
		},
	},
	{
		"a peer of both families publishes another MAC for IPv6 alone",
		func(a *announced) { a.annotate(4, map[string]string{backendV6: vtepData("02:00:00:00:00:64")}) },
		func(a *announced, i int) bool {
			return a.sees(i, "bridge fdb show dev flannel-v6.1 | grep '^02:00:00:00:00:64 '")
		},
	},
	{
		"the node's own annotations are deleted",
		func(a *announced) {
			for _, i := range []int{1, 2} {
				a.annotate(i, map[string]string{annotation + "kube-subnet-manager": "", backendData: "", backendV6: ""})
			}
		},
		func(a *announced, i int) bool {
			n, err := a.api.Client.CoreV1().Nodes().Get(a.Context(), nodeName(i), metav1.GetOptions{})
			if err != nil {
				a.Fatal(err)
			}
			return n.Annotations[annotation+"kube-subnet-manager"] == "true" && n.Annotations[backendData] != "" && n.Annotations[backendV6] != ""
		},
	},
	{
		"a peer is deleted while the daemon does not run; from when it has started",
		func(a *announced) {
			d := a.daemons["n1"]
			d.Kill()
			a.flannel.Stop("n2")
			a.withdraw(5)
			a.flannel.Start("n2")
			d.Start()
		},
		func(a *announced, i int) bool {
			return !a.sees(i, "(ip route; ip -6 route; bridge fdb) | grep '^10.244.5.0/24\\|^fd00:10:244:5::/64\\|02:00:00:00:00:05'")
		},
	},
}

// TestClusterDrift: polder follows what a cluster tells where flanneld does not,
// side by side.
func TestClusterDrift(t *testing.T) {
	a := &announced{newHybrid(t, fabric{backend: `backend "vxlan" {}`, rules: peers.NFTables, families: dual, oneLink: true}), map[int]map[string]string{}}
	a.join(1)
	a.join(2)
	for i := 3; i <= 5; i++ {
		a.announce(i, a.subnets(i))
	}
	a.flannel.Start("n2")
	a.start(1)
	a.flannel.Await()
	for i := 3; i <= 5; i++ {
		a.awaitRoutes(1, i)
	}
	var rows []string
	for k, d := range clusterDrifts {
		d.happen(a)
		begin := time.Now()
		await := func(i int, patience time.Duration) bool {
			for !d.done(a, i) {
				if time.Since(begin) > patience {
					return false
				}
			}
			return true
		}
		if !await(1, process.Endurance) {
			t.Errorf("%s: polder does nothing\n%s", d.what, a.daemons["n1"].Logbook.Tail())
		}
		if *driftTable == "" {
			continue
		}
		row := fmt.Sprintf("| %s | %d | ", d.what, time.Since(begin).Milliseconds())
		did := await(2, flannelPatience)
		if !did {
			// It hears of what happens if it follows a node that comes after that.
			late := hybridNodes + 1 + k
			a.announce(late, a.subnets(late))
			a.sh("n2", fmt.Sprintf("until ip route | grep -q '^10.244.%d.0/24 '; do :; done", late))
			did = d.done(a, 2)
		}
		if did {
			rows = append(rows, fmt.Sprintf("%s%d |", row, time.Since(begin).Milliseconds()))
		} else {
			rows = append(rows, row+"**not** |")
		}
	}
	if *driftTable != "" && !t.Failed() {
		if err := writeDrift(*driftTable, rows); err != nil {
			t.Fatal(err)
		}
	}
}

// writeDrift puts rows into the document, before how it was measured.
func writeDrift(document string, rows []string) error {
	const heading, next = "## With Kubernetes\n", "## Method\n"
	b, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	head, method, found := strings.Cut(string(b), next)
	if !found {
		return fmt.Errorf("%s has no %q", document, next)
	}
	head, _, _ = strings.Cut(head, heading)
	section := heading + fmt.Sprintf(`
What happens in a cluster. Two nodes of both families, over VXLAN, one with polder and
one with flanneld (%s), hear of the same at the same time, from a
real API server. Each was measured once, and flanneld has had %v, and until it has
followed a node that joins after that. It compares what it is told of a node with what
it was told before in a way that misses these, reads its own Node only when it starts,
and never looks for what the kernel still has of nodes that have gone. Both wait
longer and longer before they ask an API server again that was away, which is what the
first row took.

| what happens | polder has followed after ms | flanneld after ms |
|---|---|---|
%s

`, "`--kube-subnet-mgr`", flannelPatience, strings.Join(rows, "\n"))
	return os.WriteFile(document, []byte(head+section+next+method), 0o644)
}

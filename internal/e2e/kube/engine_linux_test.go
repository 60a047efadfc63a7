package kube

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
)

// engine is a container runtime on a node with a daemon.
type engine struct {
	*process.Process
	*kubetest.CNI
	list string // the file that the daemon writes
}

// engine starts a daemon and reads how it says that pods are to be attached.
func (n *network) engine(node, text string, flags ...string) *engine {
	n.Helper()
	r := n.listed(node, text, flags...)
	r.Ready()
	return r
}

// listed is one of which no more is known than that the list is there.
func (n *network) listed(node, text string, flags ...string) *engine {
	n.Helper()
	dir := n.TempDir()
	r := &engine{list: filepath.Join(dir, "net.d", "10-polder.conflist")}
	r.Process = n.daemon(node, text, append(flags, "--cni-conf-dir", filepath.Dir(r.list), "--cni-bin-dir", filepath.Join(dir, "bin"))...)
	r.Start()
	r.awaitList(true)
	list, err := os.ReadFile(r.list)
	if err != nil {
		n.Fatal(err)
	}
	// The machine's own addresses are not the test's to give away.
	own := strings.Replace(string(list), `"type": "host-local",`, `"type": "host-local", "dataDir": "/run/cni/networks",`, 1)
	r.CNI = kubetest.NewCNI(n, n.Node(node), own, filepath.Join(dir, "bin"))
	return r
}

// awaitList waits until the list is there, or is not.
func (r *engine) awaitList(there bool) {
	r.Helper()
	for begin := time.Now(); time.Since(begin) < process.Endurance; r.Pause() {
		if _, err := os.Stat(r.list); (err == nil) == there {
			return
		}
	}
	r.Stuck(fmt.Sprintf("write the list, or remove it: wanted there %t", there))
}

// sandbox is a pod of the namespace shop that is not attached yet.
func (r *engine) sandbox(name string) kubetest.Attachment {
	r.Helper()
	ns, err := lab.NewNamespace(name)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := ns.Close(); err != nil {
			r.Error(err)
		}
	})
	return kubetest.Attachment{Namespace: "shop", Name: name, Sandbox: ns, Ports: []kubetest.PortMapping{}}
}

// add attaches a pod and says which addresses it has.
func (r *engine) add(a kubetest.Attachment) (addresses []netip.Addr) {
	r.Helper()
	result, err := r.Add(r.Context(), a)
	if err != nil {
		r.Fatalf("adding %s: %v\n%s", a.Name, err, r.Logbook.Tail())
	}
	for _, ip := range result.IPs {
		address, _ := netip.AddrFromSlice(ip.Address.IP)
		addresses = append(addresses, address.Unmap())
	}
	if len(addresses) != 2 {
		r.Fatalf("%s has the addresses %v", a.Name, addresses)
	}
	return addresses
}

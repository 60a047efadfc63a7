package peers

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// Flannel is a cluster of flanneld, one on each of some namespaces, with etcd
// as its datastore. It makes the network of a spec: the same pod CIDRs,
// backend and subnets of nodes that polder would.
type Flannel struct {
	daemons
	spec  *spec.Spec
	etcd  *kubetest.Etcd
	known []*spec.Node // those with a lease
}

// Rules is how flannel writes its firewall rules.
type Rules string

const (
	// IPTables is flannel's default. It needs the programs iptables and
	// ip6tables.
	IPTables Rules = "iptables"
	// NFTables is its option EnableNFTables. It needs nft, and those two as
	// well, because flannel removes its other rules first.
	NFTables Rules = "nftables"
)

// etcdAddr is where flanneld finds etcd, on every node.
var etcdAddr = netip.MustParseAddrPort("127.0.0.1:2379")

// prefix is where flannel looks in etcd (its option -etcd-prefix).
const prefix = "/coreos.com/network/"

// StartFlannel runs flanneld on each of nodes, which have the names that they
// have in the spec, and returns when each has routes to all others. It ends
// with the test. What flannel cannot do fails it: with etcd as its datastore,
// IPv6 without IPv4.
func StartFlannel(t testing.TB, s *spec.Spec, nodes map[string]*lab.Namespace, rules Rules) *Flannel {
	t.Helper()
	lab.Require(t)
	f := &Flannel{daemons: newDaemons(t, s.Network, nodes), spec: s, etcd: kubetest.StartEtcd(t)}
	t.Cleanup(f.close)
	config, err := json.Marshal(netConf(s.Network, rules))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.etcd.Put(t.Context(), prefix+"config", string(config)); err != nil {
		t.Fatal(err)
	}
	for _, node := range s.Nodes {
		if n := nodes[node.Name]; n != nil {
			f.reserve(node)
			etcd, err := kubetest.Forward(n, etcdAddr, f.etcd.Addr)
			if err != nil {
				t.Fatalf("connecting %s to etcd: %v", node.Name, err)
			}
			t.Cleanup(func() { _ = etcd.Close() })
		}
	}
	for _, node := range s.Nodes {
		if nodes[node.Name] != nil {
			f.Start(node.Name)
		}
	}
	f.Await()
	return f
}

// netConf is flannel's net-conf.json for a network. The MTU is left to flannel.
func netConf(n *spec.Network, rules Rules) map[string]any {
	backend := map[string]any{"Type": n.Backend.Type}
	if n.Backend.Type == spec.VXLAN {
		backend["VNI"], backend["Port"] = n.Backend.VNI, n.Backend.Port
		backend["DirectRouting"] = n.Backend.DirectRouting
	}
	conf := map[string]any{"EnableIPv4": false, "EnableNFTables": rules == NFTables, "Backend": backend}
	for _, pods := range n.Pods {
		family := ""
		if spec.FamilyOf(pods.CIDR.Addr()) == spec.IPv6 {
			family = "IPv6"
			conf["EnableIPv6"] = true
		} else {
			conf["EnableIPv4"] = true
		}
		conf[family+"Network"] = pods.CIDR.String()
		conf[family+"SubnetLen"] = pods.SubnetLen
		conf[family+"SubnetMin"] = pods.SubnetMin.String()
		conf[family+"SubnetMax"] = pods.SubnetMax.String()
	}
	return conf
}

// lease is what flannel writes about a node, at a key that has its subnets
// (pkg/lease/lease.go, type LeaseAttrs).
type lease struct {
	PublicIP, PublicIPv6       *netip.Addr      `json:",omitempty"`
	BackendType                spec.BackendType `json:",omitempty"`
	BackendData, BackendV6Data *vtep            `json:",omitempty"`
}

type vtep struct {
	VNI     uint32
	VtepMAC string
}

func leaseKey(n *spec.Node) string {
	var subnets []string
	for _, s := range n.Subnets {
		subnets = append(subnets, strings.ReplaceAll(s.String(), "/", "-"))
	}
	return prefix + "subnets/" + strings.Join(subnets, "&")
}

func (f *Flannel) put(n *spec.Node, l lease) {
	f.t.Helper()
	for _, a := range n.Addresses {
		if spec.FamilyOf(a.Addr) == spec.IPv4 {
			l.PublicIP = &a.Addr
		} else {
			l.PublicIPv6 = &a.Addr
		}
	}
	b, err := json.Marshal(l)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.etcd.Put(f.t.Context(), leaseKey(n), string(b)); err != nil {
		f.t.Fatal(err)
	}
	f.known = append(f.known, n)
}

// reserve gives a node its subnets before it asks for some, as flannel's manual
// has it under "Reservations".
func (f *Flannel) reserve(n *spec.Node) { f.put(n, lease{}) }

// Announce tells all nodes of one that does not run, with a VTEP of that MAC
// for each family of its addresses.
func (f *Flannel) Announce(n *spec.Node, mac spec.MAC) {
	f.t.Helper()
	l := lease{BackendType: f.spec.Network.Backend.Type}
	if l.BackendType == spec.VXLAN {
		data := &vtep{f.spec.Network.Backend.VNI, mac.String()}
		l.BackendData = data
		if len(n.Addresses) > 1 {
			l.BackendV6Data = data
		}
	}
	f.put(n, l)
}

// Withdraw tells all nodes that one has gone.
func (f *Flannel) Withdraw(n *spec.Node) {
	f.t.Helper()
	if err := f.etcd.Delete(f.t.Context(), leaseKey(n)); err != nil {
		f.t.Fatal(err)
	}
	f.known = slices.DeleteFunc(f.known, func(k *spec.Node) bool { return k == n })
}

// Start runs flanneld on a node and returns when it says that it is ready,
// which is before it has looked for its peers: see Await.
func (f *Flannel) Start(node string) {
	f.t.Helper()
	i := slices.IndexFunc(f.spec.Nodes, func(n *spec.Node) bool { return n.Name == node })
	argv := []string{f.program, "-etcd-endpoints", "http://" + etcdAddr.String()}
	for _, a := range f.spec.Nodes[i].Addresses {
		option := "-public-ip"
		if spec.FamilyOf(a.Addr) == spec.IPv6 {
			option = "-public-ipv6"
		}
		argv = append(argv, option, a.Addr.String())
	}
	f.start(node, argv...)
}

// Await waits until every node that runs has a route to each other node that it
// has been told of, and no more.
func (f *Flannel) Await() {
	f.t.Helper()
	f.await(f.subnetsOfOthers)
}

// subnetsOfOthers are those of all nodes with a lease but one.
func (f *Flannel) subnetsOfOthers(node string) map[netip.Prefix]bool {
	subnets := map[netip.Prefix]bool{}
	for _, peer := range f.known {
		for _, s := range peer.Subnets {
			if peer.Name != node {
				subnets[s] = true
			}
		}
	}
	return subnets
}

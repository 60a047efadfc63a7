package peers

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

const (
	twoNodes = `
cluster = "peers"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
  backend "vxlan" {}
}
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}
`
	oneLink = `
link "lan" {}
node "n1" {
  link "lan" {}
}
node "n2" {
  link "lan" {}
}
`
)

// twoNodeLab is the lab of the two nodes, and their spec.
func twoNodeLab(t *testing.T) (*lab.Lab, *spec.Spec) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "peers.hcl")
	if err := os.WriteFile(file, []byte(twoNodes), 0o600); err != nil {
		t.Fatal(err)
	}
	config, diags := spec.Load(file, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	topology, diags := lab.ParseTopology("peers.lab.hcl", []byte(oneLink))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	l, err := lab.Up(t.Context(), topology, config.Spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, config.Spec
}

// TestFlannel: nodes of flannel learn of each other, of a node that is only
// announced, and of its going, and what flannel made outlives flannel.
func TestFlannel(t *testing.T) {
	lab.Require(t)
	l, s := twoNodeLab(t)
	show := func(command string) string {
		t.Helper()
		out, err := l.Node("n1").Command(context.Background(), "sh", "-c", command).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}

	f := StartFlannel(t, s, map[string]*lab.Namespace{"n1": l.Node("n1"), "n2": l.Node("n2")}, NFTables)
	peer := &spec.Node{
		Name: "n3",
		Addresses: []spec.NodeAddress{
			{Addr: netip.MustParseAddr("192.0.2.13")}, {Addr: netip.MustParseAddr("2001:db8::13")},
		},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd00:10:244:3::/64")},
	}
	mac := spec.MAC{0x02, 0, 0, 0, 0, 0x13}
	f.Announce(peer, mac)
	f.Await()
	for device, dst := range map[string]string{"flannel.1": "192.0.2.13", "flannel-v6.1": "2001:db8::13"} {
		want := fmt.Sprintf("%s dst %s self permanent", mac, dst)
		if fdb := show("bridge fdb show dev " + device); !strings.Contains(fdb, want) {
			t.Errorf("%s has not %q but\n%s", device, want, fdb)
		}
	}
	f.Stop("n1")
	if n := strings.Count(show("ip route; ip -6 route"), "onlink"); n != 4 {
		t.Errorf("%d of 4 routes are left without flannel", n)
	}
	f.Start("n1")
	// flanneld hears of what goes once it watches. That it does is seen by one
	// that comes: the routes to the others are there from before.
	f.Announce(&spec.Node{
		Name:      "n4",
		Addresses: []spec.NodeAddress{{Addr: netip.MustParseAddr("192.0.2.14")}, {Addr: netip.MustParseAddr("2001:db8::14")}},
		Subnets:   []netip.Prefix{netip.MustParsePrefix("10.244.4.0/24"), netip.MustParsePrefix("fd00:10:244:4::/64")},
	}, spec.MAC{0x02, 0, 0, 0, 0, 0x14})
	f.Await()
	f.Withdraw(peer)
	f.Await()
	if fdb := show("bridge fdb"); strings.Contains(fdb, mac.String()) {
		t.Errorf("%s is still there:\n%s", mac, fdb)
	}
}

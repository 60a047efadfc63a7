package policy

import (
	"net/netip"
	"testing"

	"github.com/poldernet/polder/spec"
)

// TestHome: subnets of a cluster's nodes need not be of one length.
func TestHome(t *testing.T) {
	subnet := func(name, p string) *spec.Node {
		return &spec.Node{Name: name, Subnets: []netip.Prefix{netip.MustParsePrefix(p)}}
	}
	sp := &spec.Spec{
		Network: &spec.Network{Pods: []spec.PodRange{{CIDR: netip.MustParsePrefix("10.244.0.0/16"), SubnetLen: 24}}},
		Nodes:   []*spec.Node{subnet("n1", "10.244.1.0/24"), subnet("n2", "10.244.2.64/26"), subnet("n3", "10.244.4.0/22")},
	}
	m, diags := New(sp)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for at, want := range map[string]string{"10.244.1.9": "n1", "10.244.2.70": "n2", "10.244.2.9": "", "10.244.7.9": "n3", "10.244.8.1": "", "192.0.2.1": ""} {
		got := ""
		if n := m.home(netip.MustParseAddr(at)); n != nil {
			got = n.Name
		}
		if got != want {
			t.Errorf("%s is of %q, not of %q", at, got, want)
		}
	}
}

// Package conflist tells container runtimes how to attach containers to the node's
// bridge: by a list of CNI plugins, and a subnet.env as flannel writes it.
package conflist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// The names of the files.
const (
	FileName = "10-polder.conflist"
	EnvName  = "subnet.env"
)

// DefaultName is flannel's name of the network. By it host-local finds the addresses
// that it has given away: on a node that was flannel's they stay taken.
const DefaultName = "cbr0"

// name is what runtimes take for the name of a network (libcni, ValidateNetworkName).
var name = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// CheckName says what is wrong with the name of a network.
func CheckName(s string) error {
	if !name.MatchString(s) {
		return fmt.Errorf("%q is no name of a network: it begins with a letter or digit, and goes on with these and _ . -", s)
	}
	return nil
}

type list struct {
	// Runtimes that know CNIVersions choose the newest that they can.
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	Plugins     []any    `json:"plugins"`
}

type capabilities map[string]bool

type bridge struct {
	Type             string       `json:"type"`
	Bridge           string       `json:"bridge"`
	IsDefaultGateway bool         `json:"isDefaultGateway"`
	HairpinMode      bool         `json:"hairpinMode"`
	MTU              int          `json:"mtu"`
	Capabilities     capabilities `json:"capabilities"` // of its IPAM plugin
	IPAM             ipam         `json:"ipam"`
}

type ipam struct {
	Type   string         `json:"type"`
	Ranges [][]addressSet `json:"ranges"`
}

type addressSet struct {
	Subnet netip.Prefix `json:"subnet"`
}

type portmap struct {
	Type         string       `json:"type"`
	Capabilities capabilities `json:"capabilities"`
}

type polder struct {
	Type     string `json:"type"`
	StateDir string `json:"stateDir"`
}

// Conflist is the list of plugins for a node's network, under a name, of which the
// daemon has a state directory.
func Conflist(n *reconcile.PodNetwork, name, stateDir string) ([]byte, error) {
	addresses := ipam{Type: "host-local"}
	for _, s := range n.Subnets {
		addresses.Ranges = append(addresses.Ranges, []addressSet{{s}})
	}
	b, err := json.MarshalIndent(list{
		CNIVersion: "1.0.0", CNIVersions: []string{"1.0.0", "1.1.0"}, Name: name,
		Plugins: []any{
			bridge{"bridge", n.Bridge, true, n.HairpinMode, n.MTU, capabilities{"ips": true}, addresses},
			portmap{"portmap", capabilities{"portMappings": true}},
			polder{"polder", stateDir},
		},
	}, "", "  ")
	return append(b, '\n'), err
}

// Env is the subnet.env (flannel, WriteSubnetFile in pkg/subnet/subnet.go).
func Env(n *reconcile.PodNetwork) []byte {
	var b bytes.Buffer
	for _, f := range spec.Families {
		prefix := map[spec.Family]string{spec.IPv4: "FLANNEL_", spec.IPv6: "FLANNEL_IPV6_"}[f]
		for _, c := range n.CIDRs {
			if spec.FamilyOf(c.Addr()) == f {
				fmt.Fprintf(&b, "%sNETWORK=%s\n", prefix, c)
			}
		}
		for _, s := range n.Subnets {
			if spec.FamilyOf(s.Addr()) == f {
				fmt.Fprintf(&b, "%sSUBNET=%s\n", prefix, netip.PrefixFrom(s.Addr().Next(), s.Bits()))
			}
		}
	}
	fmt.Fprintf(&b, "FLANNEL_MTU=%d\nFLANNEL_IPMASQ=%t\n", n.MTU, n.Masquerade)
	return b.Bytes()
}

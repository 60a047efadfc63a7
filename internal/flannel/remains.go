package flannel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// Remains is what is flannel's on a node and not part of a network that polder
// plans: nothing of it is touched by a switch.
type Remains struct {
	Processes []Process `json:"processes"`
	Rules     []Rules   `json:"rules"`
	Routes    []string  `json:"routes"` // to pods of nodes that the spec has not
}

// Process is a program that runs flannel here.
type Process struct {
	PID     int    `json:"pid"`
	Program string `json:"program"` // "flanneld", "k3s-server"
	Remedy  string `json:"remedy"`
}

// Rules are some of flannel's, by their table or chain.
type Rules struct {
	Name   string   `json:"name"`   // "table ip flannel-ipv4", "chain ip nat FLANNEL-POSTRTG"
	Does   string   `json:"does"`   // what they do
	Remedy []string `json:"remedy"` // the commands that remove them
}

// Remaining looks at the node that the calling thread's network namespace is of.
// It only reads.
func Remaining(ctx context.Context, sp *spec.Spec) (*Remains, error) {
	var r Remains
	var err error
	if r.Processes, err = processes(); err != nil {
		return nil, fmt.Errorf("looking for flannel's processes: %w", err)
	}
	if r.Rules, err = remainingRules(); err != nil {
		return nil, err
	}
	if r.Routes, err = remainingRoutes(ctx, sp); err != nil {
		return nil, fmt.Errorf("looking for flannel's routes: %w", err)
	}
	return &r, nil
}

func remainingRules() (_ []Rules, err error) {
	reader, err := nft.OpenReader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	chains, err := reader.ChainNames()
	if err != nil {
		return nil, err
	}
	return rulesOf(chains), nil
}

// rulesOf finds flannel's among the chains of a node: tables of its own, or
// chains in those of iptables (pkg/trafficmngr in flannel v0.28.9).
func rulesOf(chains map[nft.TableID][]string) (found []Rules) {
	for _, id := range slices.SortedFunc(maps.Keys(chains), func(a, b nft.TableID) int { return strings.Compare(a.String(), b.String()) }) {
		if id.Name == "flannel-ipv4" || id.Name == "flannel-ipv6" {
			found = append(found, Rules{"table " + id.String(), "masquerades, and accepts in forward", []string{"nft delete table " + id.String()}})
			continue
		}
		program := "iptables"
		if id.Family == nft.IP6 {
			program = "ip6tables"
		}
		for _, chain := range slices.Sorted(slices.Values(chains[id])) {
			switch name := "chain " + id.String() + " " + chain; {
			case chain == "FLANNEL-POSTRTG" && id.Name == "nat":
				found = append(found, Rules{name, "masquerades", []string{
					program + ` -t nat -D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG`,
					program + " -t nat -F FLANNEL-POSTRTG",
					program + " -t nat -X FLANNEL-POSTRTG",
				}})
			case chain == "FLANNEL-FWD" && id.Name == "filter":
				found = append(found, Rules{name, "accepts pod traffic in FORWARD", []string{
					program + ` -D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`,
					program + " -F FLANNEL-FWD",
					program + " -X FLANNEL-FWD",
				}})
			}
		}
	}
	return found
}

func remainingRoutes(ctx context.Context, sp *spec.Spec) (_ []string, err error) {
	if sp.Network == nil {
		return nil, nil
	}
	reader, err := overlay.OpenReader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var scope overlay.Scope
	for _, p := range sp.Network.Pods {
		scope.Pods = append(scope.Pods, p.CIDR)
	}
	observed, err := reader.Read(ctx, scope)
	if err != nil {
		return nil, err
	}
	return routesOf(sp, observed.State), nil
}

// routesOf finds the routes to pods that a switch leaves alone: what leads over
// the VTEPs of the spec becomes polder's, and what leads to the spec's nodes is
// in its plan.
func routesOf(sp *spec.Spec, state overlay.State) (found []string) {
	known := map[netip.Prefix]bool{}
	for _, n := range sp.Nodes {
		for _, s := range n.Subnets {
			known[s] = true
		}
	}
	b := sp.Network.Backend
	for key, r := range state.Routes {
		if r.NextHop != 0 || !r.Gateway.IsValid() || known[key.Dst] || b.Type == spec.VXLAN && (r.Link == b.Device.IPv4 || r.Link == b.Device.IPv6) {
			continue
		}
		found = append(found, fmt.Sprintf("%s via %s dev %s", key.Dst, r.Gateway, r.Link))
	}
	slices.Sort(found)
	return found
}

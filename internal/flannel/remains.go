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
	// Routes lead to pods of nodes that the spec has not. They stay, and
	// polder's guard drops what comes from there.
	Routes []string `json:"routes"`
	Notes  []string `json:"notes"`
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
	Does   string   `json:"does"`   // "masquerades"
	Remedy []string `json:"remedy"` // the commands that remove them

	masquerades bool
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
	if n := sp.Network; n != nil && n.Masquerade == nil && slices.ContainsFunc(r.Rules, func(r Rules) bool { return r.masquerades }) {
		r.Notes = append(r.Notes, "flannel masquerades, and the spec has no masquerade block: without flannel's rules pods reach the outside with their own addresses")
	}
	if tables := legacyTables(); len(tables) > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("iptables-legacy has the tables %s, into which polder does not see: `iptables-legacy-save | grep FLANNEL` says whether rules of flannel's are in them", strings.Join(tables, ", ")))
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
			found = append(found, Rules{"table " + id.String(), "masquerades, and accepts in forward", []string{"nft delete table " + id.String()}, slices.Contains(chains[id], "postrtg")})
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
				}, true})
			case chain == "FLANNEL-FWD" && id.Name == "filter":
				found = append(found, Rules{name, "accepts pod traffic in FORWARD", []string{
					program + ` -D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`,
					program + " -F FLANNEL-FWD",
					program + " -X FLANNEL-FWD",
				}, false})
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

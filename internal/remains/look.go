package remains

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// Remains is what is flannel's and Felix's on a node and not part of what polder
// plans: nothing of it is touched by a switch.
type Remains struct {
	Processes []Process `json:"processes"`
	Rules     []Rules   `json:"rules"`
	Links     []string  `json:"links"`
	// Routes lead to pods of nodes that the spec has not. They stay, and
	// polder's guard drops what comes from there.
	Routes []string `json:"routes"`
	Notes  []string `json:"notes"`

	links  []overlay.Link
	routes []overlay.RouteEntry
	gen    nft.Generation // in which Rules were read
}

// Look looks at the node that the calling thread's network namespace is of. It only
// reads.
func Look(ctx context.Context, sp *spec.Spec) (_ *Remains, err error) {
	reader, err := nft.OpenReader()
	if err != nil {
		return nil, err
	}
	network, err := overlay.OpenReader()
	if err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	defer func() { err = errors.Join(err, reader.Close(), network.Close()) }()
	return look(ctx, sp, reader, network)
}

func look(ctx context.Context, sp *spec.Spec, reader *nft.Reader, network *overlay.Reader) (*Remains, error) {
	var r Remains
	var err error
	if r.Processes, err = processes(); err != nil {
		return nil, fmt.Errorf("looking for flannel's and Felix's processes: %w", err)
	}
	tables, gen, err := reader.Foreign(ctx, asked)
	if err != nil {
		return nil, err
	}
	r.Rules, r.gen = rulesOf(tables), gen
	if sp.Network != nil {
		var scope overlay.Scope
		for _, p := range sp.Network.Pods {
			scope.Pods = append(scope.Pods, p.CIDR)
		}
		observed, err := network.Read(ctx, scope)
		if err != nil {
			return nil, fmt.Errorf("looking for flannel's routes: %w", err)
		}
		r.links, r.routes = linksOf(sp, observed.Facts.Links), routesOf(sp, observed.State)
		// They go with their link.
		r.routes = slices.DeleteFunc(r.routes, func(e overlay.RouteEntry) bool {
			return slices.ContainsFunc(r.links, func(l overlay.Link) bool { return l.Name == e.Link })
		})
	}
	for _, l := range r.links {
		r.Links = append(r.Links, l.Name)
	}
	for _, e := range r.routes {
		r.Routes = append(r.Routes, routeText(e))
	}
	r.Notes = r.notes(sp)
	return &r, nil
}

// has says that there is something of a program's.
func (r *Remains) has(p Program) bool {
	return slices.ContainsFunc(r.Rules, func(r Rules) bool { return r.Of == p }) || p == Flannel && len(r.links)+len(r.routes) > 0
}

func (r *Remains) notes(sp *spec.Spec) (notes []string) {
	masquerades := func(r Rules) bool { return r.masquerades }
	if n := sp.Network; n != nil && n.Masquerade == nil && slices.ContainsFunc(r.Rules, masquerades) {
		of := r.Rules[slices.IndexFunc(r.Rules, masquerades)].Of
		notes = append(notes, fmt.Sprintf("%s masquerades, and the spec has no masquerade block: without %s's rules pods reach the outside with their own addresses", of, of))
	}
	if tables := legacyTables(); len(tables) > 0 {
		notes = append(notes, fmt.Sprintf("iptables-legacy has the tables %s, into which polder does not see: `iptables-legacy-save | grep -e FLANNEL -e cali-` says whether rules of flannel's or Felix's are in them", strings.Join(tables, ", ")))
	}
	if r.has(Felix) {
		notes = append(notes, "Felix's sets of addresses are ipset's, and stay. When its rules are gone, `ipset list -n | grep -E '^cali[46]' | xargs -rn1 ipset destroy` removes them")
	}
	return notes
}

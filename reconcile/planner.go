package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/nft/nat"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/policy/guard"
	"github.com/poldernet/polder/spec"
)

// Options say whose network is reconciled, and with what.
type Options struct {
	Spec     *spec.Spec // nil: none is needed, for ModeDestroy and ModeRelease
	Node     string     // which of the spec's nodes this host is
	StateDir string     // where values from before polder are kept
}

// Planner reads the kernel and plans. It holds no handle that can write.
type Planner struct {
	options Options
	network *overlay.Reader
	ruleset *nft.Reader
}

// Open opens a planner for the calling thread's network namespace.
func Open(o Options) (*Planner, error) {
	network, err := overlay.OpenReader()
	if err != nil {
		return nil, err
	}
	ruleset, err := nft.OpenReader()
	if err != nil {
		return nil, errors.Join(err, network.Close())
	}
	return &Planner{o, network, ruleset}, nil
}

// Close closes the handles.
func (p *Planner) Close() error { return errors.Join(p.network.Close(), p.ruleset.Close()) }

// work is what stands behind a plan's changes.
type work struct {
	view    view
	network overlay.Plan
	rules   *nft.Plan
}

// Plan reads the kernel and computes what an apply would do.
func (p *Planner) Plan(ctx context.Context, mode Mode) (*Plan, error) {
	v, err := p.look(ctx, mode)
	if err != nil {
		return nil, err
	}
	plan := v.plan(mode, p.options.Node)
	if mode == ModeApply && v.desired.Bridge != "" {
		firewalls, err := p.firewalls(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range firewalls {
			plan.Warnings = append(plan.Warnings, f.String())
		}
	}
	return plan, nil
}

// firewalls are chains of others in the way of pod traffic.
func (p *Planner) firewalls(ctx context.Context) ([]Firewall, error) {
	drops, err := p.ruleset.ForeignDrops(ctx)
	if err != nil {
		return nil, err
	}
	var found []Firewall
	for _, d := range drops {
		found = append(found, firewall(d))
	}
	return found, nil
}

// view is everything that one reading of the spec and of the kernel give.
type view struct {
	scope    overlay.Scope
	desired  *overlay.Desired
	observed overlay.State
	wanted   nft.Ruleset
	rules    nft.Ruleset // as observed, in generation gen
	gen      nft.Generation
	memory   memory
}

// tables are ours, by their name.
var tables = []nft.TableID{{Family: nft.INet, Name: nft.TableName}, {Family: nft.Bridge, Name: nft.TableName}}

// look reads the kernel and compiles the spec against it.
func (p *Planner) look(ctx context.Context, mode Mode) (*view, error) {
	sp, node, err := p.target(mode)
	if err != nil {
		return nil, err
	}
	v := &view{scope: overlay.ScopeOf(sp, node)}
	facts, err := p.read(ctx, v)
	if err != nil {
		return nil, err
	}
	if v.desired, err = overlay.Compile(sp, node, facts); err != nil {
		return nil, err
	}
	if sp.Network != nil {
		v.wanted = nft.Ruleset{nft.Merge(
			nat.Compile(sp, node),
			guard.Compile(sp, node, guard.Links{
				Bridge: v.desired.Bridge, VTEPs: v.desired.VTEPs, Underlay: v.desired.Underlay, Local: v.desired.Local,
			}),
		)}
	}
	if err := p.readSysctls(v); err != nil {
		return nil, err
	}
	v.memory.restore(v.desired, v.observed)
	return v, nil
}

// observe reads the kernel again into a view whose desired half stays.
func (p *Planner) observe(ctx context.Context, v *view) error {
	if _, err := p.read(ctx, v); err != nil {
		return err
	}
	return p.readSysctls(v)
}

// read reads everything but the sysctls, of which only some are of interest.
func (p *Planner) read(ctx context.Context, v *view) (facts overlay.Facts, err error) {
	if v.memory, err = loadMemory(p.options.StateDir); err != nil {
		return facts, err
	}
	observed, err := p.network.Read(ctx, v.scope)
	if err != nil {
		return facts, fmt.Errorf("reading the kernel: %w", err)
	}
	v.observed, facts = observed.State, observed.Facts
	if v.rules, v.gen, err = p.ruleset.Read(ctx, tables...); err != nil {
		return facts, err
	}
	v.memory.keepAdvertised(&facts)
	return facts, nil
}

func (p *Planner) readSysctls(v *view) (err error) {
	paths := slices.AppendSeq(v.memory.sysctls(), maps.Keys(v.desired.Sysctls))
	v.observed.Sysctls, err = p.network.Sysctls(paths)
	return err
}

// target is the spec and the node that a mode plans for: to remove everything
// is to want a network without objects.
func (p *Planner) target(mode Mode) (*spec.Spec, *spec.Node, error) {
	if mode != ModeApply {
		return &spec.Spec{}, &spec.Node{}, nil
	}
	if p.options.Spec == nil {
		return nil, nil, errors.New("no spec is loaded")
	}
	node := p.options.Spec.Node(p.options.Node)
	if node == nil {
		return nil, nil, fmt.Errorf("node %q is not in the spec", p.options.Node)
	}
	return p.options.Spec, node, nil
}

// plan compares.
func (v *view) plan(mode Mode, node string) *Plan {
	w := work{view: *v}
	if mode == ModeRelease {
		w.network = overlay.Release(v.observed)
	} else {
		w.network = overlay.Diff(v.desired, v.observed)
		w.network.Ops = append(w.network.Ops, v.memory.resets(v.desired, v.observed)...)
	}
	w.rules = nft.Diff(v.wanted, v.rules)
	plan := &Plan{Mode: mode, Node: node, Conflicts: w.network.Conflicts, work: w}
	plan.Changes = make([]change.Change, 0, len(w.network.Ops)+len(w.rules.Changes()))
	plan.Warnings = slices.Concat(v.desired.Warnings, w.network.Warnings)
	if mode == ModeRelease && len(v.rules) > 0 {
		plan.Warnings = append(plan.Warnings, "nftables tables cannot be given away: their name is our mark. They are removed, and with them masquerade and the guard of the VXLAN port.")
	}
	for _, op := range w.network.Ops {
		if !op.Hidden {
			plan.Changes = append(plan.Changes, op.Change)
		}
	}
	plan.Changes = append(plan.Changes, w.rules.Changes()...)
	return plan
}

// Status reads the kernel and says how it stands.
func (p *Planner) Status(ctx context.Context) (*Status, error) {
	v, err := p.look(ctx, ModeApply)
	if err != nil {
		return nil, err
	}
	s := &Status{Plan: v.plan(ModeApply, p.options.Node)}
	for _, peer := range v.desired.Peers {
		path := PathVXLAN
		if peer.Direct {
			path = PathDirect
		}
		s.Peers = append(s.Peers, Peer{
			Node: peer.Node, Subnet: peer.Subnet, Path: path, Gateway: peer.Address,
			Present: v.desired.Leads(v.observed, peer),
		})
	}
	if s.Firewalls, err = p.firewalls(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// firewall says what to do about a foreign chain that drops.
func firewall(d nft.ForeignDrop) Firewall {
	f := Firewall{Chain: d.Table.String() + " " + d.Chain, Reason: d.Reason}
	switch {
	case d.Table.Name == "firewalld":
		f.Remedy = "put the bridge and the VTEP into a trusted zone: firewall-cmd --permanent --zone=trusted --add-interface=…"
	case d.Hook == "forward" && d.Chain == "FORWARD":
		f.Remedy = "accept the pod network in its own chain (of Docker: DOCKER-USER), for instance iptables -I DOCKER-USER -s PODS -j ACCEPT, and the same with -d"
	default:
		f.Remedy = "accept the pod network, and on input the VXLAN port, in that chain"
	}
	return f
}

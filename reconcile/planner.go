package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/guard"
	"github.com/poldernet/polder/spec"
)

// Options say whose network is reconciled, and with what.
type Options struct {
	Spec     *spec.Spec // nil: none is needed, for ModeDestroy and ModeRelease
	Node     string     // which of the spec's nodes this host is
	StateDir string     // where values from before polder are kept
	BootDir  string     // where the ruleset in force is kept for Boot; "": nowhere
	// SysctlDir is where switches are written; "": /proc/sys.
	SysctlDir string
}

// Planner reads the kernel and plans. It holds no handle that can write.
type Planner struct {
	options Options
	network networkReader
	ruleset rulesetReader
	// memory is what this applier has written to the state directory; nil: what
	// is there may be somebody else's. There is one applier at a time, and it
	// goes on where the file is lost.
	memory *memory
	// refused are the policies that the kernel does not take, by ID, and why. All
	// are tried again when the spec changes, or the retry of one is due.
	refused map[string]error
	// index is what was compiled last, and version says which: it counts how often
	// the index was made, or made another. current says that since then the events
	// have kept it as the spec and the inventory are, so that neither need be looked
	// at as a whole. Nodes of a cluster are not in it: policies name those of files.
	index   *policy.Index
	version uint64
	current bool
	// inventory is what there is beside the spec, the attached containers among it;
	// nil: nothing ever. merged is the spec with it; nil: as of before the latest
	// event.
	inventory *policy.Inventory
	merged    *spec.Spec
	attached  attach.List
	follows   bool // a cluster tells what there is
	// members are the nodes that a cluster tells of; joined is what became of them
	// beside those of the spec; nil: as of before the latest change of either.
	members  spec.Members
	joined   *joined
	macs     spec.PerFamily[spec.MAC] // of the node's VTEPs, once they are in the kernel
	last     *part                    // that the node had in the network; nil: none is known
	keptPart part                     // that a restart would find
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
	p := &Planner{options: o, network: network, ruleset: ruleset}
	if err := p.loadAttachments(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close closes the handles.
func (p *Planner) Close() error { return errors.Join(p.network.Close(), p.ruleset.Close()) }

// work is what stands behind a plan's changes.
type work struct {
	view    view
	network overlay.Plan
	rules   *nft.Plan
	told    []change.Change // what rules comes to
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
	if mode == ModeDestroy && v.memory.empty() && slices.ContainsFunc(slices.Collect(maps.Values(v.state.Links)), overlay.Link.Marked) {
		warnings, err := p.forwardingStays()
		if err != nil {
			return nil, err
		}
		plan.Warnings = append(plan.Warnings, warnings...)
	}
	return plan, nil
}

// forwardingStays warns that a host with a network of ours, of which nothing is
// remembered, goes on forwarding. It may have done so before, or its memory is
// in another directory, or lost: the kernel does not say which.
func (p *Planner) forwardingStays() ([]string, error) {
	paths := []string{overlay.ForwardingSwitch(spec.IPv4), overlay.ForwardingSwitch(spec.IPv6)}
	values, err := p.network.Sysctls(paths)
	if err != nil {
		return nil, err
	}
	var on []string
	for _, path := range paths {
		if now, there := values[path]; there && now != "0" {
			on = append(on, overlay.SysctlName(path)+"="+now)
		}
	}
	if len(on) == 0 {
		return nil, nil
	}
	return []string{fmt.Sprintf("nothing is remembered in %s of the time before polder: sysctls stay as they are, %s among them. "+
		"If the network was applied with another --state-dir, give that one; if its memory is lost, set by hand what the host is not to keep.",
		p.options.StateDir, strings.Join(on, " and "))}, nil
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

// view is what is known of the spec and of the kernel. It is a value: one that
// is brought up to date is another view, and shares with the first what has not
// changed.
type view struct {
	scope    overlay.Scope
	observed *overlay.Observed
	state    overlay.State    // as observed, with the sysctls
	facts    overlay.Facts    // of the host, as they were compiled with
	compiled *overlay.Desired // what the spec and the facts come to; nil: nothing
	desired  *overlay.Desired // the same, with what memory puts back
	// nodes are those of the spec that it was compiled with, and peers what the guard
	// makes of guarded.
	nodes, guarded []*spec.Node
	peers          guard.Peers
	// enforcing says that there were policies: without any, nothing is asked of a
	// bridge that is not ours.
	enforcing bool
	indexed   uint64                  // the version of the index that it was compiled with; 0: none
	names     func(netip.Addr) string // of endpoints
	// policyHost is what the policies were compiled with.
	policyHost policy.Host
	wanted     *wanted
	// counters says what the named counters of wanted count. Where the files
	// changed and the ruleset did not, their lines may have.
	counters func() map[string]policy.Counter
	rules    nft.Ruleset // as observed, in generation gen
	gen      nft.Generation
	memory   memory
	warnings []string
}

// tables are ours, by their name.
var tables = []nft.TableID{{Family: nft.INet, Name: nft.TableName}, {Family: nft.Bridge, Name: nft.TableName}}

// look reads the kernel and compiles the spec against it.
func (p *Planner) look(ctx context.Context, mode Mode) (*view, error) {
	p.refused = nil
	return p.update(ctx, mode, nil, everything)
}

// update brings a view up to date: it reads what is dirty, and computes anew
// what follows from that. The old view stays as it was. Where the spec cannot be
// compiled for the host as it is, the error comes with what was read.
func (p *Planner) update(ctx context.Context, mode Mode, old *view, what dirt) (*view, error) {
	sp, node, err := p.near(mode)
	if err != nil {
		return nil, err
	}
	v := &view{}
	if old == nil {
		what = everything
	} else {
		*v = *old
	}
	if err := p.read(ctx, v, overlay.ScopeOf(sp, node), what); err != nil {
		return nil, err
	}
	// The index may have been made for another view since.
	outdated := what.spec || v.outdated() || v.indexed != p.version || !p.current || v.enforcing != p.enforcing()
	if outdated {
		if err := v.compile(sp, node); err != nil {
			return v, err
		}
		v.enforcing = p.enforcing()
	}
	if outdated || what.rules || what.policies {
		p.want(v, sp, node)
		p.current = mode == ModeApply
	}
	if err := p.readSysctls(v); err != nil {
		return nil, err
	}
	desired := *v.compiled
	desired.Sysctls, desired.Ports = maps.Clone(desired.Sysctls), maps.Clone(desired.Ports)
	v.desired = &desired
	v.memory.restore(v.desired, v.state)
	return v, nil
}

// reread is an update of what is observed alone.
func (p *Planner) reread(ctx context.Context, old *view, what dirt) (*view, error) {
	v := *old
	if err := p.read(ctx, &v, v.scope, what); err != nil {
		return nil, err
	}
	return &v, p.readSysctls(&v)
}

// readSysctls completes the state. What is observed gets them, too: by them it
// knows an echo of what we wrote.
func (p *Planner) readSysctls(v *view) (err error) {
	observed := *v.observed
	observed.State.Sysctls, err = p.network.Sysctls(v.sysctls())
	v.observed, v.state = &observed, observed.State
	return err
}

// read reads what is dirty, but for the sysctls, of which only some are of
// interest.
func (p *Planner) read(ctx context.Context, v *view, scope overlay.Scope, what dirt) (err error) {
	if p.memory != nil {
		v.memory = *p.memory
	} else if v.memory, err = loadMemory(p.options.StateDir); err != nil {
		return err
	}
	switch {
	case v.observed == nil || !scope.Equal(v.scope):
		v.observed, err = p.network.Read(ctx, scope)
	case what.network != 0:
		v.observed, err = p.network.Refresh(ctx, v.observed, what.network)
	}
	v.scope = scope
	if err != nil {
		return fmt.Errorf("reading the kernel: %w", err)
	}
	if what.rules {
		v.rules, v.gen, err = p.ruleset.Read(ctx, tables...)
	}
	return err
}

// outdated says that the host is no longer what was compiled for, or never was.
func (v *view) outdated() bool {
	return v.compiled == nil || !reflect.DeepEqual(v.facts, v.memory.advertised(v.observed.Facts))
}

func (v *view) compile(sp *spec.Spec, node *spec.Node) (err error) {
	v.facts = v.memory.advertised(v.observed.Facts)
	v.compiled, err = overlay.Compile(sp, node, v.facts)
	v.nodes = sp.Nodes
	return err
}

// sysctls are the paths of the switches that matter.
func (v *view) sysctls() []string {
	return slices.AppendSeq(v.memory.sysctls(), maps.Keys(v.compiled.Sysctls))
}

// sysctlsMoved says that a switch is no longer as it was when it was last
// read. One that cannot be read has moved: a round will say why.
func (p *Planner) sysctlsMoved(v *view) bool {
	now, err := p.network.Sysctls(v.sysctls())
	return err != nil || !maps.Equal(now, v.state.Sysctls)
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
	sp, node, err := p.own()
	if err != nil || p.inventory == nil {
		return sp, node, err
	}
	if p.merged == nil {
		p.merged = p.inventory.Beside(sp)
		p.merged.Nodes = p.nodes().all
	}
	return p.merged, node, nil
}

// near is the same without the endpoints of other nodes, as long as the index knows
// those: in a large cluster, to put all in order takes longer than all the rest.
func (p *Planner) near(mode Mode) (*spec.Spec, *spec.Node, error) {
	if mode != ModeApply || !p.current || p.options.Spec == nil {
		return p.target(mode)
	}
	sp, node, err := p.own()
	if err != nil || p.index.Node() != node.Name {
		return p.target(mode)
	}
	sp = p.index.Beside(sp)
	sp.Nodes = p.nodes().all
	if p.inventory != nil {
		sp.Policies = p.inventory.Policies(sp.Policies)
	}
	return sp, node, nil
}

// enforcing says that there are policies.
func (p *Planner) enforcing() bool {
	sp := p.options.Spec
	return sp != nil && len(sp.Policies)+len(sp.Manifests) > 0 || p.inventory != nil && p.inventory.HasPolicies()
}

// plan compares.
func (v *view) plan(mode Mode, node string) *Plan {
	w := work{view: *v}
	if mode == ModeRelease {
		w.network = overlay.Release(v.state)
	} else {
		w.network = overlay.Diff(v.desired, v.state)
		w.network.Ops = append(w.network.Ops, v.memory.resets(v.desired, v.state)...)
	}
	w.rules = v.wanted.plan(v.rules)
	w.told = w.rules.Changes()
	if mode == ModeApply {
		w.told = v.tell(w.rules)
	}
	plan := &Plan{Mode: mode, Node: node, Conflicts: w.network.Conflicts, work: w}
	plan.Warnings = slices.Concat(v.desired.Warnings, w.network.Warnings)
	if mode == ModeRelease && len(v.rules) > 0 {
		if policies, addresses := policy.InForce(inetTable(v.rules)); policies > 0 {
			plan.Warnings = append(plan.Warnings, fmt.Sprintf("policies end, and nobody enforces them until something else does: in force are %d, and they isolate endpoints with %d addresses.", policies, addresses))
		}
		plan.Warnings = append(plan.Warnings, "nftables tables cannot be given away: their name is our mark. They are removed, and with them masquerade and the guard of the VXLAN port.")
	}
	plan.Changes = w.changes()
	return plan
}

// changes are what operations and rules come to, in order.
func (w work) changes() []change.Change {
	changes := make([]change.Change, 0, len(w.network.Ops)+len(w.told))
	for _, op := range w.network.Ops {
		if !op.Hidden {
			changes = append(changes, op.Change)
		}
	}
	return append(changes, w.told...)
}

// without is a plan that leaves out the objects that wait. The rules are one
// unit: when the time of one has come, all are written.
func (p *Plan) without(waits func(change.Change) bool) *Plan {
	if !slices.ContainsFunc(p.Changes, waits) {
		return p
	}
	part := *p
	part.work.network.Ops = nil
	for _, op := range p.work.network.Ops {
		if !waits(op.Change) {
			part.work.network.Ops = append(part.work.network.Ops, op)
		}
	}
	if !slices.ContainsFunc(p.work.told, func(c change.Change) bool { return !waits(c) }) {
		part.work.rules, part.work.told = &nft.Plan{}, nil
	}
	part.Changes = part.work.changes()
	return &part
}

// Status reads the kernel and says how it stands.
func (p *Planner) Status(ctx context.Context) (*Status, error) {
	v, err := p.look(ctx, ModeApply)
	if err != nil {
		return nil, err
	}
	s := &Status{Plan: v.plan(ModeApply, p.options.Node), Peers: v.reached()}
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

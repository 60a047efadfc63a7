package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Cluster is a source of workloads and policies beside the spec's files.
type Cluster interface {
	// Watch tells of all that there is, and then of what becomes of it, until ctx
	// ends. tell does not wait.
	Watch(ctx context.Context, tell func(Update))
	// Publish makes known to others what this node says of itself, from now on. It
	// does not wait.
	Publish(NodeState)
	// Find has it tell of a pod at once, by the way of Watch, if it has not yet. The
	// error is ErrNoPod where there is none that could be attached.
	Find(context.Context, attach.Pod) error
}

// Update is something that a cluster tells.
type Update struct {
	Events []policy.Event             // in the order in which they happened
	Nodes  map[string]*spec.Candidate // that have come or changed, by name; nil: it is gone
	// Complete says that with this everything has been told of that there was to
	// begin with. Until then nothing in the kernel is changed: what is missing
	// would be taken for gone.
	Complete bool
	Hearing  *Hearing // nil: as before
	Saying   *Saying  // nil: as before
}

// Hearing says whether a cluster can be heard.
type Hearing struct {
	Err error // why not; nil: it can
}

// Saying says whether a cluster takes what the node says of itself.
type Saying struct {
	Err error // why not; nil: it does
}

// add adds what was told later.
func (u *Update) add(o Update) {
	u.Events = append(u.Events, o.Events...)
	u.Complete = u.Complete || o.Complete
	if u.Nodes == nil {
		u.Nodes = make(map[string]*spec.Candidate, len(o.Nodes))
	}
	maps.Copy(u.Nodes, o.Nodes)
	if o.Hearing != nil {
		u.Hearing = o.Hearing
	}
	if o.Saying != nil {
		u.Saying = o.Saying
	}
}

// ErrNoPod says that a cluster was asked for a pod, and has none.
var ErrNoPod = errors.New("there is no such pod")

// errUnknown is why nothing is planned, and nothing answered, as long as a cluster has
// not told of everything.
var errUnknown = errors.New("the cluster has not told of everything that there is yet")

// ErrNotAsked is why nothing is planned by who asks no cluster.
var ErrNotAsked = errors.New("the spec has a block kubernetes, and only `polder run` asks the cluster what there is: without its pods and policies, what they come to in the kernel would be taken for gone")

// follow begins to hear of the cluster that a spec names, and forgets the one
// before.
func (d *Daemon) follow(k *spec.Kubernetes) {
	if (k == nil) == (d.named == nil) && (k == nil || *k == *d.named) {
		return
	}
	d.leave()
	d.named = k
	d.now.Cluster, d.waiting = nil, k != nil
	d.applier.follow(k != nil)
	if k == nil {
		d.meet() // nobody tells of pods any more
		return
	}
	if err := d.applier.loadPart(*k); err != nil {
		d.journal.add(Event{Type: EventError, Err: err.Error()})
	}
	d.now.Cluster = &ClusterCondition{Since: time.Now()}
	d.now.Attachable = false
	if d.now.InSync {
		d.now.InSync, d.now.Since = false, time.Now()
		d.journal.add(Event{Type: EventOutOfSync, Cause: CauseSpec, Message: "waiting for the cluster"})
	}
	if d.options.Cluster == nil {
		return // it stays unknown
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	cluster := d.options.Cluster(k)
	d.cluster, d.said = cluster, NodeState{}
	go func() {
		defer close(done)
		cluster.Watch(ctx, func(u Update) { d.box.put(func(m *mail) { m.update.add(u) }) })
	}()
	d.leave = func() {
		cancel()
		<-done
		d.cluster = nil
		// What it told last is about what is forgotten now.
		d.box.mu.Lock()
		defer d.box.mu.Unlock()
		d.box.mail.update = Update{}
		d.leave = func() {}
	}
}

// openUpdate takes note of what the cluster told.
func (d *Daemon) openUpdate(u Update, since time.Time) {
	if u.Hearing != nil {
		d.hear(u.Hearing.Err)
	}
	if u.Saying != nil {
		d.say(u.Saying.Err)
	}
	if len(u.Events) == 0 && len(u.Nodes) == 0 && !u.Complete {
		return
	}
	d.now.Counters.Events += uint64(len(u.Events))
	again := d.reconsider(u.Events)
	for _, e := range u.Events {
		d.applier.apply(e)
	}
	d.meet()
	what := dirt{policies: true, spec: again}
	if len(u.Nodes) > 0 {
		d.applier.setNodes(u.Nodes)
		what.nodes = true
	}
	if u.Complete && d.waiting {
		d.waiting = false
		d.now.Cluster = &ClusterCondition{Known: true, Since: time.Now(), Err: d.now.Cluster.Err}
		what.spec = true
		d.journal.add(Event{Type: EventClusterKnown, Took: time.Since(d.now.Started)})
	}
	d.because(CauseCluster, what, since)
}

// hear notes whether the cluster can be heard. What it told stays in force.
func (d *Daemon) hear(err error) {
	c := *d.now.Cluster
	switch {
	case err != nil && (c.Err == nil || c.Err.Error() != err.Error()):
		d.journal.add(Event{Type: EventError, Object: "cluster", Err: err.Error(), Message: c.stays()})
	case err == nil && c.Err != nil:
		d.journal.add(Event{Type: EventRecovered, Object: "cluster"})
	}
	c.Err = err
	d.now.Cluster = &c
}

// say notes whether the cluster takes what the node says of itself.
func (d *Daemon) say(err error) {
	c := *d.now.Cluster
	const object = "what the node publishes"
	switch {
	case err != nil && (c.Unsaid == nil || c.Unsaid.Error() != err.Error()):
		d.journal.add(Event{Type: EventError, Object: object, Err: err.Error(), Message: "it is tried again; peers and the scheduler go by what was published before"})
	case err == nil && c.Unsaid != nil:
		d.journal.add(Event{Type: EventRecovered, Object: object})
	}
	c.Unsaid = err
	d.now.Cluster = &c
}

// follow forgets what a cluster told, and says whether one will tell.
func (p *Planner) follow(cluster bool) {
	p.follows = cluster
	p.members, p.joined, p.macs = spec.Members{}, nil, spec.PerFamily[spec.MAC]{}
	p.last = nil
	p.inventory, p.merged, p.index, p.current = p.inventory.Attached(), nil, nil, false
}

// Among plans an apply among the nodes of a cluster, as a daemon does that has been told
// of them and of no pods and policies. Warnings tell of those that are left out.
func (p *Planner) Among(ctx context.Context, nodes []spec.Candidate) (*Plan, error) {
	told := make(map[string]*spec.Candidate, len(nodes))
	for i := range nodes {
		told[nodes[i].Name] = &nodes[i]
	}
	p.follow(true)
	p.setNodes(told)
	plan, err := p.Plan(ctx, ModeApply)
	if err != nil {
		return nil, err
	}
	plan.Warnings = append(plan.Warnings, warnLeftOut(p.leftOut(&plan.work.view), "")...)
	return plan, nil
}

func (p *Planner) setNodes(changes map[string]*spec.Candidate) {
	if own := changes[p.options.Node]; own != nil {
		p.keepMACs(own)
	}
	p.members.Set(changes)
	p.joined, p.merged = nil, nil
}

// keepMACs has the node's own candidate say the MACs that its VTEPs have. What its
// Node says counts when a daemon begins, so that peers need not learn another MAC;
// from then on it is written by the daemon, and whoever else writes it is wrong.
func (p *Planner) keepMACs(own *spec.Candidate) {
	for _, f := range spec.Families {
		if mac := p.macs.Get(f); !mac.IsZero() {
			for _, says := range []*spec.Published{&own.Polder, &own.Flannel} {
				says.MACs.Set(f, mac)
			}
		}
	}
}

// apply changes what an event says.
func (p *Planner) apply(e policy.Event) {
	before := p.inventory.Around(p.options.Spec, e)
	p.inventory.Apply(e)
	p.merged = nil
	if p.index == nil {
		return
	}
	if e.Endpoint != nil || e.Attachment != nil {
		p.replace(before, p.inventory.Around(p.options.Spec, e))
		return
	}
	if ns := e.Namespace; ns != nil && e.Gone && p.options.Spec != nil {
		for _, own := range p.options.Spec.Namespaces {
			if own.Name == ns.Name {
				e = policy.Event{Namespace: own} // it is the spec's again
			}
		}
	}
	p.index.Apply(e)
}

// replace makes endpoints of the index others.
func (p *Planner) replace(before, after []*spec.Endpoint) {
	for _, e := range before {
		if !slices.ContainsFunc(after, func(o *spec.Endpoint) bool { return o.Name == e.Name }) {
			p.index.DeleteEndpoint(e.Name)
		}
	}
	for _, e := range after {
		p.index.SetEndpoint(e)
	}
}

// setSpec makes another spec the one that is planned for.
func (p *Planner) setSpec(sp *spec.Spec) {
	p.options.Spec, p.joined, p.merged, p.current = sp, nil, nil, false
}

// own is the spec without what there is beside it, and the node, which may be as it was
// last: see standIn.
func (p *Planner) own() (*spec.Spec, *spec.Node, error) {
	sp := p.options.Spec
	if sp.Kubernetes != nil && !p.follows {
		return nil, nil, ErrNotAsked
	}
	j := p.nodes()
	if j.own == nil {
		return nil, nil, p.missing()
	}
	return sp, j.own, nil
}

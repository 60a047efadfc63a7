package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// world is what an index is told of, in the order of names.
type world struct {
	frame      spec.Spec
	endpoints  map[string]*spec.Endpoint
	namespaces map[string]*spec.Namespace
	policies   map[string]*spec.Policy
}

func newWorld(frame spec.Spec) *world {
	return &world{frame, map[string]*spec.Endpoint{}, map[string]*spec.Namespace{}, map[string]*spec.Policy{}}
}

func (w *world) model() *Model {
	sp := w.frame
	for _, name := range slices.Sorted(maps.Keys(w.endpoints)) {
		sp.Endpoints = append(sp.Endpoints, w.endpoints[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.namespaces)) {
		sp.Namespaces = append(sp.Namespaces, w.namespaces[name])
	}
	for _, id := range slices.Sorted(maps.Keys(w.policies)) {
		sp.Policies = append(sp.Policies, w.policies[id])
	}
	m, _ := New(&sp)
	return m
}

// drawing draws the small worlds in which everything meets everything.
type drawing struct{ *rapid.T }

func (d drawing) number(n int, what string) int { return rapid.IntRange(0, n-1).Draw(d.T, what) }

func (d drawing) one(what string, list ...string) string { return list[d.number(len(list), what)] }

func (d drawing) labels(what string) map[string]string {
	labels := map[string]string{}
	for _, k := range []string{"a", "b"} {
		if v := d.one(what+" "+k, "", "", "1", "2", "empty"); v == "empty" {
			labels[k] = ""
		} else if v != "" {
			labels[k] = v
		}
	}
	return labels
}

func (d drawing) selector(what string) *selector.Selector {
	s, err := selector.Parse(d.one(what, "all()", "a == '1'", "a in {'1', '2'}", "has(b)", "!has(a)", "b != '1'", "a == '1' && b == '2'",
		"a == '1' || b == '1'", "a == ''", "a contains '1' && has(b)", "a == '1' && a == '2'", "has(a) || has(b)"))
	if err != nil {
		d.Fatal(err)
	}
	return s
}

func (d drawing) namespaceSelector(what string) *selector.Selector {
	switch d.number(5, what+" kind") {
	case 0:
		return selector.Equals(spec.NamespaceLabel, d.one(what, "default", "x", "y"))
	case 1:
		return selector.In(spec.NamespaceLabel, "x", "y")
	}
	return d.selector(what)
}

func (d drawing) endpoint() *spec.Endpoint {
	e := &spec.Endpoint{
		Name: d.one("endpoint", "e1", "e2", "e3", "e4", "e5", "e6", "e7"), Node: d.one("node", "n1", "n1", "n2"),
		Namespace: d.one("namespace", "default", "x", "y", "z"), Labels: d.labels("label"),
	}
	// Two may have an address for a while.
	if n := d.number(9, "v4"); n > 0 {
		e.Addresses = append(e.Addresses, netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", n)))
	}
	if n := d.number(5, "v6"); n > 0 {
		e.Addresses = append(e.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00::%d", n)))
	}
	if n := d.number(3, "port"); n > 0 {
		e.Ports = map[string]spec.Port{"http": {Number: uint16(79 + n), Protocol: d.one("protocol", "tcp", "udp")}}
	}
	return e
}

func (d drawing) rules(what string) []spec.Rule {
	list := make([]spec.Rule, d.number(3, what))
	for i := range list {
		r := &list[i]
		r.Action = []spec.Action{spec.Allow, spec.Allow, spec.Deny, spec.Pass, spec.Log}[d.number(5, "action")]
		for range d.number(3, "peers") {
			switch d.number(7, "peer") {
			case 0:
				r.Peers = append(r.Peers, spec.Peer{Block: &spec.Block{CIDR: netip.MustParsePrefix("10.0.0.0/30")}})
			case 1:
				r.Peers = append(r.Peers, spec.Peer{NetworkSet: "office"})
			case 2:
				r.Peers = append(r.Peers, spec.Peer{Node: "n2"})
			default:
				s := &spec.PeerSelector{Selector: d.selector("peer selector")}
				if d.number(2, "scoped") == 0 {
					s.Namespaces = d.namespaceSelector("peer namespaces")
				}
				r.Peers = append(r.Peers, spec.Peer{Endpoints: s})
			}
		}
		for range d.number(2, "services") {
			if d.number(2, "named") == 0 {
				r.Services = append(r.Services, spec.Service{Name: "http"})
			} else {
				r.Services = append(r.Services, spec.Service{Protocol: 6, Ports: spec.PortRange{First: 80, Last: 80}})
			}
		}
	}
	return list
}

func (d drawing) policy() *spec.Policy {
	p := &spec.Policy{
		Kind: spec.KindPolicy, Name: d.one("policy", "p1", "p2", "p3", "p4", "p5"), Tier: d.one("tier", "first", spec.DefaultTier),
		Types: [][]spec.Direction{spec.Directions, {spec.Ingress}, {spec.Egress}}[d.number(3, "types")],
	}
	if n := d.number(3, "order"); n > 0 {
		order := float64(n)
		p.Order = &order
	}
	switch d.number(4, "of") {
	case 0:
		p.HostSelector = d.selector("host selector")
	case 1:
		p.Selector, p.NamespaceSelector = d.selector("subject"), d.namespaceSelector("subject's namespaces")
	case 2:
		p.Selector, p.Namespace = d.selector("subject"), d.one("policy's namespace", "default", "x")
	default:
		p.Selector = d.selector("subject")
	}
	p.Ingress, p.Egress = d.rules("ingress"), d.rules("egress")
	return p
}

func (d drawing) frame() spec.Spec {
	return spec.Spec{
		Nodes: []*spec.Node{{Name: "n1"}, {Name: "n2", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}},
		Tiers: []*spec.Tier{
			{Name: "first", Order: []float64{1, 2e6}[d.number(2, "order of the tier")], DefaultAction: spec.Pass},
			{Name: spec.DefaultTier, Order: spec.DefaultTierOrder, DefaultAction: spec.Deny},
		},
		NetworkSets:   []*spec.NetworkSet{{Name: "office", CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Labels: d.labels("office")}},
		HostEndpoints: []*spec.HostEndpoint{{Name: "h", Node: "n1", Interface: "eth0", Labels: d.labels("host")}},
		Enforcement:   spec.Enforcement{Established: spec.Recheck, LogRate: 10, LogDrops: d.number(2, "log") == 0},
	}
}

// event changes the world, and tells an index.
func (d drawing) event(w *world, x *Index) {
	switch d.number(14, "event") {
	case 0, 1, 2, 3:
		e := d.endpoint()
		w.endpoints[e.Name] = e
		x.SetEndpoint(e)
	case 4, 5, 6:
		if old := w.endpoints[d.one("changed", "e1", "e2", "e3", "e4")]; old != nil {
			e, another := *old, d.endpoint()
			switch d.number(4, "what changes") {
			case 0:
				e.Addresses = another.Addresses
			case 1:
				e.Node = another.Node
			case 2:
				e.Ports = another.Ports
			default:
				e.Labels = another.Labels
			}
			w.endpoints[e.Name] = &e
			x.SetEndpoint(&e)
		}
	case 7:
		name := d.one("deleted", "e1", "e2", "e3", "e4", "e5", "e6", "e7")
		delete(w.endpoints, name)
		x.DeleteEndpoint(name)
	case 8, 9, 10:
		p := d.policy()
		w.policies[p.ID()] = p
		x.SetPolicy(p)
	case 11:
		p := spec.Policy{Kind: spec.KindPolicy, Name: d.one("deleted policy", "p1", "p2", "p3", "p4", "p5")}
		delete(w.policies, p.ID())
		x.DeletePolicy(p.ID())
	case 12:
		ns := &spec.Namespace{Name: d.one("namespace", "default", "x", "y"), Labels: d.labels("namespace's label")}
		if d.number(3, "gone") == 0 {
			delete(w.namespaces, ns.Name)
			x.DeleteNamespace(ns.Name)
			return
		}
		w.namespaces[ns.Name] = ns
		x.SetNamespace(ns)
	default:
		w.frame = d.frame()
		x.SetFrame(&w.frame)
	}
}

var indexHost = Host{Node: &spec.Node{Name: "n1"}, Bridge: "cni0"}

func equalTables(t *rapid.T, what string, got, want nft.Table) {
	t.Helper()
	g, w := strings.Split(got.String(), "\n"), strings.Split(want.String(), "\n")
	if !slices.Equal(g, w) {
		t.Fatalf("%s: too much:\n%s\ntoo little:\n%s", what, missing(g, w), missing(w, g))
	}
}

// missing are the lines that others do not have.
func missing(lines, others []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return slices.Contains(others, l) }), "\n")
}

// After any events, an index gives what a fresh one does, whatever of it is
// remembered, and what an evaluation of every selector on every endpoint does.
func TestIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawing{t}
		w := newWorld(d.frame())
		x := NewIndex(w.model(), indexHost)
		x.Remake = rapid.SampledFrom([]int{0, 3}).Draw(t, "remake")
		live := nft.Table{Family: nft.INet, Name: nft.TableName}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			if d.number(6, "at once") == 0 {
				beside := NewIndex(w.model(), indexHost)
				for range d.number(6, "changes") {
					d.event(w, beside)
				}
				x.SetModel(w.model())
			} else {
				d.event(w, x)
			}
			if d.number(3, "batch") == 0 {
				continue
			}
			fresh := NewIndex(w.model(), indexHost)
			fresh.Remake = x.Remake
			got, want := x.Compile(live), fresh.Compile(asRead(live))
			equalTables(t, "the index", got.Table, want.Table)
			if len(got.Via) != len(want.Via) {
				t.Fatalf("%d tables on the way, want %d", len(got.Via), len(want.Via))
			}
			for i := range got.Via {
				equalTables(t, "on the way", got.Via[i], want.Via[i])
			}
			plainly(t, w.model(), x)
			live = got.Table
			if again := x.Compile(live); !again.Table.Shares(live) {
				t.Fatal("something changed by itself")
			}
		}
	})
}

// asRead is a table that shares nothing.
func asRead(t nft.Table) nft.Table {
	t.Chains, t.Sets, t.Counters = slices.Clone(t.Chains), slices.Clone(t.Sets), slices.Clone(t.Counters)
	for i, s := range t.Sets {
		t.Sets[i].Elements = slices.Clone(s.Elements)
	}
	return t
}

// plainly holds an index to what the model says of each endpoint.
func plainly(t *rapid.T, m *Model, x *Index) {
	t.Helper()
	var chains []string
	for _, c := range x.now.table.Chains {
		chains = append(chains, c.Name)
	}
	used := lookedUpFrom(x.now.table, chains...)
	for _, s := range x.now.living.list {
		name := s.name
		if !used[name+x.suffix[name]] {
			t.Fatalf("no rule looks up %s of\n%s", name, x.now.table)
		}
		var want []nft.Element
		for _, e := range m.spec.Endpoints {
			if slices.ContainsFunc(s.scopes, func(one scope) bool { return m.within(one, e) }) {
				for _, k := range s.keys(e) {
					want = append(want, nft.Exact(k))
				}
			}
		}
		if got := x.elements(s); !slices.Equal(got, sorted(want)) {
			t.Fatalf("%s holds %v, want %v", name, got, sorted(want))
		}
	}
	for _, e := range x.own {
		var want []*spec.Policy
		for _, tier := range m.tiers {
			for _, p := range tier.policies {
				if m.selects(p, e.Endpoint) {
					want = append(want, p)
				}
			}
		}
		if !slices.Equal(e.identity.subjects, want) {
			t.Fatalf("%s is selected by %v, want %v", e.Name, e.identity.subjects, want)
		}
	}
}

// What comes and goes leaves nothing in an index.
func TestIndexForgets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawing{t}
		w := newWorld(d.frame())
		x := NewIndex(w.model(), indexHost)
		live := x.Compile(nft.Table{}).Table
		empty := x.sizes()
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			d.event(w, x)
			if d.number(2, "look") == 0 {
				live = x.Compile(live).Table
			}
		}
		for name := range w.endpoints {
			x.DeleteEndpoint(name)
		}
		for id := range w.policies {
			x.DeletePolicy(id)
		}
		for name := range w.namespaces {
			x.DeleteNamespace(name)
		}
		x.Compile(live)
		if got := x.sizes(); got != empty {
			t.Fatalf("left over: %v, want %v", got, empty)
		}
	})
}

// sizes are those of all that an index keeps.
func (x *Index) sizes() string {
	return fmt.Sprint(len(x.declared), len(x.m.namespaces), len(x.endpoints), len(x.owners), len(x.identities), len(x.inNamespace), len(x.withLabel),
		len(x.withPort), len(x.own), len(x.identified), len(x.policies), len(x.serials), len(x.subjects), len(x.hostPolicies),
		len(x.living), len(x.scopes), len(x.touched), len(x.pieces), len(x.suffix), len(x.now.pieces),
		len(x.now.chains.by), len(x.now.sets.by), len(x.now.living.by), len(x.now.counters.by))
}

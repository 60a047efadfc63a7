package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// firewall is policies in the terms that both polder and iptables can be told
// them in: who may come in to b, and what there is beside that.
type firewall struct {
	family spec.Family
	// elsewhere is how many policies select other pods of the node: each one of
	// them, and each lets one address in at one port.
	elsewhere int
	others    int // pods of the node that have b's policies
	// rules let in those that each of them names. a is in the last one, behind
	// all others that it names, at allowedPort.
	rules []rule
	apart bool // each of the rules is for a port of its own
	both  bool // a's egress is judged as well
	keep  bool // open connections are kept
	v4    bool // pods have no IPv6 address
}

// rule is how many addresses, or prefixes of 8 addresses, a rule lets in.
type rule struct{ members, prefixes int }

// and is both together.
func (r rule) and(o rule) rule { return rule{r.members + o.members, r.prefixes + o.prefixes} }

// times is rules that name as many.
func times(n int, r rule) []rule { return slices.Repeat([]rule{r}, n) }

// otherPods is over how many pods the policies that select other pods spread.
const otherPods = 100

// other is the address of another pod of the node, peer one of a pod on another
// node, and outside a prefix beyond the cluster.
func other(i int) netip.Addr     { return v4(10, 64, i) }
func peer(i int) netip.Addr      { return v4(10, 128, i) }
func outside(i int) netip.Prefix { return netip.PrefixFrom(v4(172, 16, i*16), 29) } // no two are neighbours

// v4 is the nth address from first.second.0.0 on.
func v4(first, second byte, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{first, second + byte(n>>16), byte(n >> 8), byte(n)})
}

// policies are the firewall as polder has it.
func (f firewall) policies(at site) *spec.Spec {
	sp := &spec.Spec{
		Nodes:       []*spec.Node{{Name: at.nodeName(), Subnets: at.subnets()}, {Name: "far"}},
		Tiers:       []*spec.Tier{{Name: spec.DefaultTier, Order: spec.DefaultTierOrder, DefaultAction: spec.Deny}},
		Endpoints:   at.endpoints(),
		Enforcement: spec.Enforcement{Established: spec.Recheck, LogRate: 10},
	}
	if f.keep {
		sp.Enforcement.Established = spec.Keep
	}
	if f.v4 {
		for _, e := range sp.Endpoints {
			e.Addresses = slices.DeleteFunc(e.Addresses, netip.Addr.Is6)
		}
	}
	add := func(name, node string, a netip.Addr, labels map[string]string) {
		sp.Endpoints = append(sp.Endpoints, &spec.Endpoint{Name: name, Node: node, Namespace: "default", Addresses: []netip.Addr{a}, Labels: labels})
	}
	allow := func(name string, subject *selector.Selector, d spec.Direction, rules ...spec.Rule) {
		p := &spec.Policy{Kind: spec.KindPolicy, Name: name, Tier: spec.DefaultTier, Selector: subject, Types: []spec.Direction{d}}
		if d == spec.Ingress {
			p.Ingress = rules
		} else {
			p.Egress = rules
		}
		sp.Policies = append(sp.Policies, p)
	}
	port := func(n int) []spec.Service {
		return []spec.Service{{Protocol: nft.UDP, Ports: spec.PortRange{First: uint16(n), Last: uint16(n)}}}
	}
	for i := range min(f.elsewhere, otherPods) {
		add(fmt.Sprintf("other%d", i), at.nodeName(), other(i), map[string]string{"name": fmt.Sprintf("other%d", i)})
	}
	for i := range f.elsewhere {
		allow(fmt.Sprintf("elsewhere%d", i), selector.Equals("name", fmt.Sprintf("other%d", i%otherPods)), spec.Ingress,
			spec.Rule{Action: spec.Allow, Peers: []spec.Peer{{Block: &spec.Block{CIDR: single(peer(i))}}}, Services: port(allowedPort)})
	}
	for i := range f.others {
		add(fmt.Sprintf("like-b%d", i), at.nodeName(), other(otherPods+i), map[string]string{"name": "b"})
	}
	var rules []spec.Rule
	named := rule{f.elsewhere, 0}
	for k, r := range f.rules {
		in := fmt.Sprintf("in%d", k)
		for i := range r.members {
			add(fmt.Sprintf("peer%d-%d", k, i), "far", peer(named.members+i), map[string]string{in: ""})
		}
		rule := spec.Rule{Action: spec.Allow, Peers: []spec.Peer{{Endpoints: &spec.PeerSelector{Selector: selector.Has(in)}}}, Services: port(f.port(k))}
		for i := range r.prefixes {
			rule.Peers = append(rule.Peers, spec.Peer{Block: &spec.Block{CIDR: outside(named.prefixes + i)}})
		}
		if k == len(f.rules)-1 {
			if r.members > 0 {
				sp.Endpoints[0].Labels[in] = ""
			} else {
				rule.Peers = append(rule.Peers[1:], spec.Peer{Block: &spec.Block{CIDR: single(at.pod("a"))}})
			}
		}
		named = named.and(r)
		rules = append(rules, rule)
	}
	allow("b", selector.Equals("name", "b"), spec.Ingress, rules...)
	if f.both {
		allow("a", selector.Equals("name", "a"), spec.Egress, spec.Rule{Action: spec.Allow, Services: port(allowedPort)}, spec.Rule{Action: spec.Allow, Services: port(deniedPort)})
	}
	return sp
}

// port is that of the kth rule.
func (f firewall) port(k int) int {
	if f.apart {
		return allowedPort + 10*(len(f.rules)-1-k) // never deniedPort
	}
	return allowedPort
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// polder is the firewall by polder.
func (f firewall) polder(name string) variant {
	return variant{
		name: name, family: f.family,
		rules: func(at site) error { return commit(f.compile(at).Table) },
		decided: func(at site) error {
			for name, c := range f.compile(at).Counters() {
				if c.Policy != nil && c.Policy.Name == "b" && c.Rule == len(f.rules) {
					return counted(name)
				}
			}
			return errors.New("the last rule has no counter")
		},
	}
}

// begun is what is left of polder's ruleset if the forward hook's chain ends
// after its first n rules.
func (f firewall) begun(name string, n int) variant {
	return variant{name: name, family: f.family, open: true, rules: func(at site) error {
		t := f.compile(at).Table
		i := slices.IndexFunc(t.Chains, forwards)
		t.Chains[i].Rules = t.Chains[i].Rules[:n]
		return commit(t)
	}}
}

// forwards says that a chain is that of the forward hook.
func forwards(c nft.Chain) bool { return c.Base != nil && c.Base.Hook == "forward" }

func (f firewall) compile(at site) policy.Compiled {
	sp := f.policies(at)
	m, _ := policy.New(sp)
	return policy.Compile(m, policy.Host{Node: sp.Nodes[0], Bridge: "cni0"}, nft.Table{})
}

// commit puts a table in force in the thread's namespace.
func commit(t nft.Table) error {
	r, err := nft.OpenReader()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	gen, err := r.Generation()
	if err != nil {
		return err
	}
	w, err := nft.OpenWriter()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	_, err = w.Commit(context.Background(), nft.Diff(nft.Ruleset{t}, nil), gen)
	return err
}

var packetsCounted = regexp.MustCompile(`packets (\d+)`)

// counted checks that a counter has counted, in the thread's namespace.
func counted(name string) error {
	out, err := exec.CommandContext(context.Background(), "nft", "list", "counter", "inet", "polder", name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	m := packetsCounted.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("no packets in %s", out)
	}
	if n, err := strconv.Atoi(string(m[1])); err != nil || n == 0 {
		return fmt.Errorf("the rule that was to decide counted nothing: %s", out)
	}
	return nil
}

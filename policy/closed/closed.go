// Package closed compiles what keeps isolated workloads closed where the ruleset
// that has their policies cannot be read at a boot, and is the file that knows who
// they are. It needs no spec.
package closed

import (
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/spoof"
	"github.com/poldernet/polder/spec"
)

// Workloads are the isolated endpoints of a node.
type Workloads struct {
	Ports     []string     `json:"ports"` // of bridges; not all have one
	Addresses []netip.Addr `json:"addresses"`
}

// Of are the workloads that a ruleset isolates.
func Of(rs nft.Ruleset) Workloads {
	var w Workloads
	w.Ports, w.Addresses = spoof.Isolated(rs)
	return w
}

// Empty says that nobody is isolated.
func (w Workloads) Empty() bool { return len(w.Ports)+len(w.Addresses) == 0 }

const (
	chainForward    = "closed_forward"
	chainPrerouting = "closed_prerouting"
	setPorts        = "closed_ports"
)

var (
	setAddresses = spec.PerFamily[string]{IPv4: "closed4", IPv6: "closed6"}
	linkLocals   = netip.MustParsePrefix("fe80::/10")
	unspecified  = spec.PerFamily[netip.Addr]{IPv4: netip.IPv4Unspecified(), IPv6: netip.IPv6Unspecified()}
)

// priorityEarly is where the rules about who says what are, before br_netfilter.
const priorityEarly int32 = -350

// Compile makes the ruleset that drops what is forwarded from and to the
// workloads, routed or over a bridge. Between them and the node itself all passes,
// and the node is reached by all. What a workload's port sends under an address of
// nobody that is isolated would be forwarded, and is dropped before.
func (w Workloads) Compile() nft.Ruleset {
	inet, bridge := tables()
	var ports, from []nft.Rule
	sets := []nft.Set{{Name: setPorts, Key: []nft.Type{nft.TypeIfName}}}
	for _, name := range w.Ports {
		sets[0].Elements = append(sets[0].Elements, nft.Exact(nft.IfName(name)))
	}
	// A port's own name is that of frames that go round the bridge, too.
	for _, link := range []nft.Field{nft.IIFName(), nft.OIFName()} {
		ports = append(ports, nft.NewRule("of an isolated endpoint", link.In(setPorts), dropped()))
	}
	forward := chain(chainForward, "forward", nft.PriorityFilter, ports)
	frames := chain(chainForward, "forward", nft.PriorityFilter, ports)
	for _, f := range spec.Families {
		set := nft.Set{Name: setAddresses.Get(f), Key: []nft.Type{nft.AddrType(f)}}
		for _, a := range w.Addresses {
			if spec.FamilyOf(a) == f {
				set.Elements = append(set.Elements, nft.Exact(nft.Addr(a)))
			}
		}
		sets = append(sets, set)
		for _, address := range []nft.Field{nft.Saddr(f), nft.Daddr(f)} {
			forward.Rules = append(forward.Rules, nft.NewRule("of an isolated endpoint", address.In(set.Name), dropped()))
			frames.Rules = append(frames.Rules, nft.NewRule("of an isolated endpoint", carries(f), nft.Bare(address).In(set.Name), dropped()))
		}
		other := []nft.Statement{nft.IIFName().In(setPorts), carries(f), nft.Bare(nft.Saddr(f)).NotIn(set.Name), nft.Bare(nft.Saddr(f)).IsNot(nft.Addr(unspecified.Get(f)))}
		if f == spec.IPv6 {
			other = append(other, nft.Bare(nft.Saddr(f)).NotInPrefix(linkLocals))
		}
		from = append(from, nft.NewRule("under another address", append(other, dropped())...))
	}
	inet.Chains, inet.Sets = []nft.Chain{forward}, sets
	bridge.Chains, bridge.Sets = []nft.Chain{frames, chain(chainPrerouting, "prerouting", priorityEarly, from)}, sets
	return nft.Ruleset{nft.Merge(inet), nft.Merge(bridge)}
}

// CompileAll makes the ruleset for a node that has isolated workloads, and does
// not know which: whoever is behind a bridge may be one. What it routes between
// other interfaces passes.
func CompileAll() nft.Ruleset {
	inet, bridge := tables()
	inet.Chains = []nft.Chain{chain(chainForward, "forward", nft.PriorityFilter, []nft.Rule{
		nft.NewRule("from behind a bridge", nft.IIFKind().Is(nft.KindBridge), dropped()),
		nft.NewRule("to behind a bridge", nft.OIFKind().Is(nft.KindBridge), dropped()),
	})}
	bridge.Chains = []nft.Chain{chain(chainForward, "forward", nft.PriorityFilter, []nft.Rule{nft.NewRule("over a bridge", dropped())})}
	return nft.Ruleset{inet, bridge}
}

func tables() (inet, bridge nft.Table) {
	return nft.Table{Family: nft.INet, Name: nft.TableName}, nft.Table{Family: nft.Bridge, Name: nft.TableName}
}

func chain(name, hook string, at int32, rules []nft.Rule) nft.Chain {
	return nft.Chain{Name: name, Base: &nft.Base{Type: "filter", Hook: hook, Priority: at, Policy: nft.PolicyAccept}, Rules: rules}
}

// carries matches frames by what they carry, whether under a tag or not.
func carries(f spec.Family) nft.Statement { return nft.Protocol().Is(nft.Ether(nft.EtherTypeOf(f))) }

func dropped() nft.Statement { return nft.Do(nft.Counter{}, nft.Drop) }

package agree

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/internal/verdict"
	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// flow is a flow with who takes part in it.
type flow struct {
	policy.Flow
	from, to party
	far      string // the interface by which it leaves a node for another machine
}

// between is the interface between two parties on different machines: the VTEP,
// where both are in the subnets of nodes that do not route directly.
func between(sp *spec.Spec, from, to party) string {
	in := func(p party) bool {
		return p.node != nil && slices.ContainsFunc(p.node.Subnets, func(s netip.Prefix) bool { return s.Contains(p.address) })
	}
	if sp.Network == nil {
		return world.Link
	}
	backend := sp.Network.Backend
	if backend.Type != spec.VXLAN || !in(from) || !in(to) || from.node == to.node {
		return world.Link
	}
	if f := spec.FamilyOf(to.address); !backend.DirectRouting || from.node.Addresses[slices.Index(spec.Families[:], f)].Link.IsSingleIP() {
		return backend.Device.Get(f)
	}
	return world.Link
}

func (f flow) String() string {
	return fmt.Sprintf("from %s to %s, protocol %d, port %d, type %d, code %d", f.From, f.To, f.Protocol, f.Port, f.Type, f.Code)
}

// flows are what to ask of a world: who could talk to whom, about what. Where
// there are more than limit, some are chosen by a seed, and few of those that no
// policy can be about.
func flows(sp *spec.Spec, limit int, seed uint64) []flow {
	random := rand.New(rand.NewPCG(seed, 0))
	guarded := map[string]bool{}
	for _, h := range sp.HostEndpoints {
		guarded[h.Node] = true
	}
	all := services(sp)
	var services spec.PerFamily[[]policy.Flow]
	var pairs [][2]party
	total := 0
	for _, f := range spec.Families {
		of := slices.DeleteFunc(slices.Clone(all), func(s policy.Flow) bool { return s.Protocol == icmpOf(f.Other()) })
		services.Set(f, of)
		parties := parties(sp, f)
		for _, from := range parties {
			for _, to := range parties {
				if from == to || from.strange() && to.strange() || from.same(to) {
					continue
				}
				if from.guarded(guarded) || to.guarded(guarded) || random.IntN(16) == 0 {
					pairs = append(pairs, [2]party{from, to})
					total += len(of)
				}
			}
		}
	}
	var list []flow
	add := func(from, to party, s policy.Flow) {
		s.From, s.To = from.address, to.address
		s.FromInterface, s.ToInterface = world.Link, world.Link
		far := between(sp, from, to)
		if far != world.Link {
			// What leads there is for the evaluator to find, or is told.
			s.FromInterface, s.ToInterface = []string{"", far}[random.IntN(2)], []string{"", far}[random.IntN(2)]
		}
		list = append(list, flow{s, from, to, far})
	}
	if total <= limit {
		for _, p := range pairs {
			for _, s := range services.Get(spec.FamilyOf(p[0].address)) {
				add(p[0], p[1], s)
			}
		}
		return list
	}
	for range limit {
		p := pairs[random.IntN(len(pairs))]
		of := services.Get(spec.FamilyOf(p[0].address))
		add(p[0], p[1], of[random.IntN(len(of))])
	}
	return list
}

// guarded says that policies can be about the party, where nodes have host
// endpoints.
func (p party) guarded(nodes map[string]bool) bool {
	return p.endpoint != nil || p.node != nil && nodes[p.node.Name]
}

func icmpOf(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return spec.ProtocolICMP
	}
	return spec.ProtocolICMPv6
}

// party is an address, and whose it is.
type party struct {
	address  netip.Addr
	endpoint *spec.Endpoint
	node     *spec.Node // the endpoint's, or the one that has the address itself
}

// strange says that the party is neither an endpoint nor a node.
func (p party) strange() bool { return p.node == nil }

// same says that both are one endpoint or one node, so that what they send to
// each other passes no hook.
func (p party) same(o party) bool { return p.endpoint == o.endpoint && p.node == o.node }

// parties are all addresses of a family that policies could tell apart: those of
// endpoints and nodes, and those at the ends of blocks and beside them.
func parties(sp *spec.Spec, f spec.Family) []party {
	owners := map[netip.Addr]party{}
	for _, n := range sp.Nodes {
		for _, a := range policy.NodeAddresses(n) {
			owners[a] = party{address: a, node: n}
		}
	}
	for _, e := range sp.Endpoints {
		for _, a := range e.Addresses {
			owners[a] = party{a, e, sp.Node(e.Node)}
		}
	}
	strangers := []netip.Addr{world.Outside(f)}
	block := func(p netip.Prefix) {
		first, last := p.Masked().Addr(), lastOf(p)
		strangers = append(strangers, first.Prev(), first, last, last.Next())
	}
	for _, s := range sp.NetworkSets {
		for _, p := range s.CIDRs {
			block(p)
		}
	}
	for r := range allRules(sp) {
		for _, p := range r.Peers {
			if p.Block != nil {
				block(p.Block.CIDR)
				for _, e := range p.Block.Except {
					block(e)
				}
			}
		}
	}
	for _, a := range strangers {
		if _, known := owners[a]; !known && a.IsValid() {
			owners[a] = party{address: a}
		}
	}
	var list []party
	for a, p := range owners {
		if spec.FamilyOf(a) == f {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b party) int { return a.address.Compare(b.address) })
	return list
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// allRules are the rules of all policies.
func allRules(sp *spec.Spec) func(yield func(*spec.Rule) bool) {
	return func(yield func(*spec.Rule) bool) {
		for _, p := range sp.Policies {
			for _, d := range spec.Directions {
				for i := range p.Rules(d) {
					if !yield(&p.Rules(d)[i]) {
						return
					}
				}
			}
		}
	}
}

// services are the protocols, ports and messages that rules could tell apart.
// The addresses are left open.
func services(sp *spec.Spec) []policy.Flow {
	seen := map[policy.Flow]bool{
		{Protocol: spec.ProtocolTCP, Port: 443}:    true,
		{Protocol: spec.ProtocolUDP, Port: 53}:     true,
		{Protocol: spec.ProtocolICMP, Type: 8}:     true,
		{Protocol: spec.ProtocolICMPv6, Type: 128}: true,
		{Protocol: 47}: true,
	}
	ports := func(protocol uint8, first, last uint16) {
		for _, p := range []uint16{first - 1, first, last, last + 1} {
			if p != 0 {
				seen[policy.Flow{Protocol: protocol, Port: p}] = true
			}
		}
	}
	one := func(s spec.Service) {
		switch {
		case s.ICMP != nil:
			seen[policy.Flow{Protocol: s.Protocol, Type: s.ICMP.Type, Code: 1}] = true
			seen[policy.Flow{Protocol: s.Protocol, Type: s.ICMP.Type}] = true
		case !s.Ports.IsZero():
			ports(s.Protocol, s.Ports.First, s.Ports.Last)
		}
	}
	named := func(list map[string]spec.Port) {
		for _, p := range list {
			for name, number := range map[string]uint8{"tcp": spec.ProtocolTCP, "udp": spec.ProtocolUDP, "sctp": spec.ProtocolSCTP} {
				if name == p.Protocol {
					seen[policy.Flow{Protocol: number, Port: p.Number}] = true
				}
			}
		}
	}
	for r := range allRules(sp) {
		for _, s := range r.Services {
			one(s)
		}
	}
	for _, e := range sp.Endpoints {
		named(e.Ports)
	}
	for _, h := range sp.HostEndpoints {
		for _, s := range slices.Concat(h.FailsafeInbound, h.FailsafeOutbound) {
			one(s)
		}
	}
	var list []policy.Flow
	for s := range seen {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b policy.Flow) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Code, b.Code))
	})
	return list
}

// translation is what NAT does to a flow on its way.
type translation struct {
	service bool // the client speaks to the address and port of a service
	masked  bool // the server sees another client
}

var translations = []translation{{}, {service: true}, {masked: true}, {service: true, masked: true}}

var (
	serviceAddress = spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("10.96.0.10"), IPv6: netip.MustParseAddr("fd00:10:96::10")}
	maskedAddress  = spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("203.0.113.1"), IPv6: netip.MustParseAddr("2001:db8:f::1")}
)

// passage is a packet of a flow at a hook of a node.
type passage struct {
	node   *spec.Node
	hook   string
	packet verdict.Packet
}

// TCP's flags.
const (
	flagSYN = 0x02
	flagACK = 0x10
)

const clientPort = 40000

// passages are the hooks of a flow's nodes that it comes by: with the packet that
// opens it, or with an answer.
func passages(f flow, nat translation, answers bool) []passage {
	p := packetOf(f.Flow, nat, answers)
	list := make([]passage, 0, 2)
	if f.from.node != nil {
		list = append(list, passageAt(f.from.node, f.from, f.to, f.far, p, nat, answers))
	}
	if f.to.node != nil && f.to.node != f.from.node {
		list = append(list, passageAt(f.to.node, f.to, f.from, f.far, p, nat, answers))
	}
	return list
}

// passageAt is how a packet passes a node, on which one end of the flow is.
func passageAt(n *spec.Node, here, there party, far string, p verdict.Packet, nat translation, answers bool) passage {
	sent := here.address == p.Src // from here to there
	near := world.Bridge
	if there.node == n {
		far = world.Bridge
	}
	hook := "forward"
	p.In, p.Out = near, far
	switch {
	case here.endpoint == nil && sent:
		hook, p.In, p.Out = "output", "", far
	case here.endpoint == nil:
		hook, p.In, p.Out = "input", far, ""
	case there.endpoint == nil && there.node == n && sent:
		hook, p.Out = "input", ""
	case there.endpoint == nil && there.node == n:
		hook, p.In, p.Out = "output", "", near
	case !sent:
		p.In, p.Out = far, near
	}
	if hook == "output" && nat.service && !answers {
		p.Out = world.Link // of the route to the service
		if far != world.Bridge {
			p.Out = far // who has the VTEP's address has not asked for that route
		}
	}
	return passage{n, hook, p}
}

// packetOf is a packet of a flow as hooks behind prerouting see it: with the
// addresses of the two ends, whatever was or will be written into it.
func packetOf(f policy.Flow, nat translation, answers bool) verdict.Packet {
	family := spec.FamilyOf(f.From)
	original := verdict.Tuple{Src: f.From, Dst: f.To}
	reply := verdict.Tuple{Src: f.To, Dst: f.From}
	ported := f.Protocol == spec.ProtocolTCP || f.Protocol == spec.ProtocolUDP || f.Protocol == spec.ProtocolSCTP
	switch {
	case ported:
		original.SrcPort, original.DstPort = clientPort, f.Port
		reply.SrcPort, reply.DstPort = f.Port, clientPort
	case f.Protocol == icmpOf(family):
		const id = 7
		original.SrcPort, original.DstPort = id, uint16(f.Type)<<8|uint16(f.Code)
		reply.SrcPort, reply.DstPort = id, uint16(answerTo(f.Type))<<8|uint16(f.Code)
	}
	if nat.service {
		original.Dst = serviceAddress.Get(family)
		if ported {
			original.DstPort = 8888
		}
	}
	// What opens the connection passes the hooks before it is masked.
	if nat.masked && answers {
		reply.Dst = maskedAddress.Get(family)
		if ported {
			reply.DstPort = 61000
		}
	}
	p := verdict.Packet{
		Src: f.From, Dst: f.To, Protocol: f.Protocol, Type: f.Type, Code: f.Code,
		Conn: verdict.Conn{State: nft.CTStateNew, Original: original, Reply: reply},
	}
	if ported {
		p.SrcPort, p.DstPort = clientPort, f.Port
	}
	if f.Protocol == spec.ProtocolTCP {
		p.TCPFlags = flagSYN
	}
	if !answers {
		return p
	}
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	p.Conn.State, p.Conn.Answers = nft.CTStateEstablished, true
	if f.Protocol == icmpOf(family) {
		p.Type = answerTo(f.Type)
	}
	if f.Protocol == spec.ProtocolTCP {
		p.TCPFlags = flagSYN | flagACK
	}
	return p
}

// answerTo is the type of the ICMP message that answers another.
func answerTo(t uint8) uint8 {
	switch t {
	case 8:
		return 0
	case 13:
		return 14
	case 128:
		return 129
	}
	return t
}

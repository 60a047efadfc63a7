package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Describe is what a rule says, in one line and in the words of the spec:
// "allow 5432/tcp from app == 'web'". Rules that say the same have the same
// line.
func Describe(r *spec.Rule, d spec.Direction) string {
	parts := []string{string(r.Action)}
	if r.Services != nil {
		parts = append(parts, list(r.Services, "nothing", ", ", describeService))
	}
	if r.Peers != nil {
		word := "from"
		if d == spec.Egress {
			word = "to"
		}
		parts = append(parts, word, list(r.Peers, "nobody", " or ", describePeer))
	}
	return strings.Join(parts, " ")
}

func list[T any](of []T, none, separator string, text func(*T) string) string {
	if len(of) == 0 {
		return none
	}
	texts := make([]string, len(of))
	for i := range of {
		texts[i] = text(&of[i])
	}
	return strings.Join(texts, separator)
}

func describePeer(p *spec.Peer) string {
	switch {
	case p.Any:
		return "anybody"
	case p.Block != nil:
		text := p.Block.CIDR.String()
		for i, e := range p.Block.Except {
			text += map[bool]string{true: " except ", false: ", "}[i == 0] + e.String()
		}
		return text
	case p.NetworkSet != "":
		return "network set " + p.NetworkSet
	case p.Node != "":
		return "node " + p.Node
	}
	text := "all()"
	if p.Endpoints.Selector != nil {
		text = p.Endpoints.Selector.String()
	}
	if p.Endpoints.Namespaces != nil {
		text += " in namespaces " + p.Endpoints.Namespaces.String()
	}
	// What stands in double quotes cannot stand in a comment of nft(8).
	return strings.ReplaceAll(text, `"`, "'")
}

func describeService(s *spec.Service) string {
	protocol := protocolText(s.Protocol)
	switch {
	case s.Name != "" && s.Protocol == 0:
		return s.Name
	case s.Name != "":
		return s.Name + "/" + protocol
	case s.ICMP != nil && s.ICMP.Code != nil:
		return fmt.Sprintf("%s type %d code %d", protocol, s.ICMP.Type, *s.ICMP.Code)
	case s.ICMP != nil:
		return fmt.Sprintf("%s type %d", protocol, s.ICMP.Type)
	case s.Ports.IsZero():
		return protocol
	}
	return s.Ports.String() + "/" + protocol
}

func protocolText(n uint8) string {
	switch n {
	case nft.TCP:
		return "tcp"
	case nft.UDP:
		return "udp"
	case nft.SCTP:
		return "sctp"
	case icmp(spec.IPv4):
		return "icmp"
	case icmp(spec.IPv6):
		return "ipv6-icmp"
	}
	return "protocol " + strconv.Itoa(int(n))
}

// comment is the comment of the rules that a policy's rule is compiled to. By
// it a plan tells what a policy says in the kernel.
func comment(p *spec.Policy, d spec.Direction, number int, text string) string {
	return cut(fmt.Sprintf("%s %s %d: %s", p.ID(), d, number, text))
}

// lastOf is the comment of a chain's last rule. It names the policies of the
// chain, of which some may have no rules.
func lastOf(g stage) string {
	ids := make([]string, len(g.policies))
	for i, p := range g.policies {
		ids[i] = p.ID()
	}
	return cut(fmt.Sprintf("tier %s: %s after %s", g.tier.Name, g.tier.DefaultAction, strings.Join(ids, ", ")))
}

// cut makes a comment of a line. One that is too long for a comment is cut, and
// marked so that another one differs.
func cut(whole string) string {
	if c := nft.Comment(whole); c == whole {
		return c
	}
	mark := " #" + hash(whole)[:8]
	return nft.Comment(strings.ToValidUTF8(whole[:min(len(whole), nft.MaxComment-len(mark))], "")) + mark
}

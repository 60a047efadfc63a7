package policy

import (
	"fmt"
	"strings"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// Describe is what a rule says, in one line and in the words of the spec:
// `allow 5432/tcp from app == "web"`.
func Describe(r *spec.Rule, d spec.Direction) string {
	parts := []string{string(r.Action)}
	switch {
	case r.Services == nil:
	case len(r.Services) == 0:
		parts = append(parts, "nothing")
	default:
		parts = append(parts, ServicesText(r.Services))
	}
	if r.Peers != nil {
		parts = append(parts, map[spec.Direction]string{spec.Ingress: "from", spec.Egress: "to"}[d])
		var list []string
		for i := range r.Peers {
			list = append(list, PeerText(&r.Peers[i]))
		}
		if len(list) == 0 {
			list = []string{"nobody"}
		}
		parts = append(parts, strings.Join(list, " or "))
	}
	return strings.Join(parts, " ")
}

// PeerText is the other end of a rule in the same words.
func PeerText(p *spec.Peer) string {
	switch {
	case p.Any:
		return "anybody"
	case p.Block != nil:
		text := BlockText(p.Block.CIDR)
		var holes []string
		for _, e := range p.Block.Except {
			holes = append(holes, BlockText(e))
		}
		if len(holes) > 0 {
			text += " except " + strings.Join(holes, ", ")
		}
		return text
	case p.NetworkSet != "":
		return "network_set " + p.NetworkSet
	case p.Node != "":
		return "node " + p.Node
	case p.Endpoints == nil:
		return "nobody"
	}
	text := "all()"
	if p.Endpoints.Selector != nil {
		text = p.Endpoints.Selector.String()
	}
	if p.Endpoints.Namespaces != nil {
		text += " in namespaces " + p.Endpoints.Namespaces.String()
	}
	return text
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
	// What stands in double quotes cannot stand in a comment of nft(8).
	whole = strings.ReplaceAll(whole, `"`, "'")
	if c := nft.Comment(whole); c == whole {
		return c
	}
	mark := " #" + hash(whole)[:8]
	return nft.Comment(strings.ToValidUTF8(whole[:min(len(whole), nft.MaxComment-len(mark))], "")) + mark
}

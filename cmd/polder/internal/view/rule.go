package view

import (
	"strings"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// ruleText is what a rule says, in one line and in the words of the spec:
// "allow 5432/tcp from app == "web"".
func ruleText(r *spec.Rule, d spec.Direction) string {
	parts := []string{string(r.Action)}
	switch {
	case r.Services == nil:
	case len(r.Services) == 0:
		parts = append(parts, "nothing")
	default:
		parts = append(parts, policy.ServicesText(r.Services))
	}
	if r.Peers != nil {
		parts = append(parts, map[spec.Direction]string{spec.Ingress: "from", spec.Egress: "to"}[d])
		var list []string
		for i := range r.Peers {
			list = append(list, peerText(&r.Peers[i]))
		}
		if len(list) == 0 {
			list = []string{"nobody"}
		}
		parts = append(parts, strings.Join(list, " or "))
	}
	return strings.Join(parts, " ")
}

func peerText(p *spec.Peer) string {
	switch {
	case p.Any:
		return "anybody"
	case p.Block != nil:
		text := policy.BlockText(p.Block.CIDR)
		var holes []string
		for _, e := range p.Block.Except {
			holes = append(holes, policy.BlockText(e))
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

package reconcile

import "github.com/poldernet/polder/overlay"

// dirt is what may have changed since it was read, and has to be read again.
type dirt struct {
	network overlay.Class // without Sysctls
	rules   bool
	sysctls bool
	spec    bool // the spec is another; nothing of the kernel needs reading for that alone
	// policies says that the index of policies has changed. That is no reason to
	// look at anything else.
	policies bool
	// nodes says that the cluster's nodes have changed. Where that cannot be told
	// from what is known, it is as if the spec were another.
	nodes bool
}

// everything is the dirt of one who knows nothing.
var everything = dirt{network: overlay.Everything &^ overlay.Sysctls, rules: true, sysctls: true, spec: true, policies: true}

func (d dirt) with(o dirt) dirt {
	return dirt{d.network | o.network, d.rules || o.rules, d.sysctls || o.sysctls, d.spec || o.spec, d.policies || o.policies, d.nodes || o.nodes}
}

// touched is what a plan writes. Sysctls are read every time.
func touched(p *Plan) dirt {
	if p.Empty() {
		return dirt{}
	}
	return dirt{network: overlay.Touched(p.work.network.Ops) &^ overlay.Sysctls, rules: !p.work.rules.Empty()}
}

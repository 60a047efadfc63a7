package spec

import (
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
)

func (d *decoder) decodeKubernetes(b *hcl.Block) *Kubernetes {
	s := d.open(kubernetesBlock, b.Body, b.DefRange, d.ctx)
	k := &Kubernetes{}
	k.Kubeconfig, _, _ = s.text("kubeconfig", "")
	if k.Kubeconfig != "" && !filepath.IsAbs(k.Kubeconfig) {
		k.Kubeconfig = filepath.Join(d.base, k.Kubeconfig)
	}
	k.Context, _, _ = s.text("context", "")
	return k
}

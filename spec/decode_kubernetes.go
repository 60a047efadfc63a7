package spec

import (
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
)

func (d *decoder) decodeKubernetes(b *hcl.Block) *Kubernetes {
	s := d.open(kubernetesBlock, b.Body, b.DefRange, d.ctx)
	k := &Kubernetes{}
	file, at, st := s.text("kubeconfig", "")
	if st == known && file == "" { // would be read as if it were not there
		s.report(at.problem("Unsuitable kubeconfig", "The name of a kubeconfig is empty. Name its file, or leave kubeconfig out for the credentials of the pod that polder runs in."))
	}
	k.Kubeconfig = file
	if k.Kubeconfig != "" && !filepath.IsAbs(k.Kubeconfig) {
		k.Kubeconfig = filepath.Join(d.base, k.Kubeconfig)
	}
	k.Context, _, _ = s.text("context", "")
	return k
}

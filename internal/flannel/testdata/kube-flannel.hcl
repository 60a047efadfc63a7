# flannel's network, from "kube-flannel.yml". Comments that begin with
# "dropped" tell what polder has not, or has otherwise.

cluster = "edge"

# Nodes are those of the API server, each with the subnets in its podCIDRs.
# Without a kubeconfig here, the daemon runs in a pod: see
# docs/kubernetes-deploy.md.
kubernetes {}

network {
  # With compat, nodes that run polder and nodes that run flannel find each
  # other by flannel's annotations.
  # dropped: --healthz-port: about how flanneld runs.
  pod_cidrs = ["10.244.0.0/16"]
  compat    = "flannel"

  # In the place of cni-conf.json the daemon writes a list of plugins of its
  # own: see docs/cni.md.
  bridge {
    name         = "cni0"
    hairpin_mode = true
  }

  backend "vxlan" {
    vni  = 1
    port = 8472
  }

  # dropped: the accept in FORWARD, which is in flannel's rules. polder has
  # none; `polder status` says whether anything drops pod traffic.
  # dropped: EnableNFTables: polder's rules are nftables ones in any case, in
  # tables of their own. flannel's stay behind; docs/flannel.md tells how to
  # remove them.
  masquerade {}
}

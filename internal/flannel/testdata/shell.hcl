# flannel's network, from "shell.yml". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

# Nodes are those of the API server, each with the subnets in its podCIDRs.
# Without a kubeconfig here, the daemon runs in a pod: see
# docs/kubernetes-deploy.md.
kubernetes {}

network {
  # With compat, nodes that run polder and nodes that run flannel find each
  # other by flannel's annotations.
  pod_cidrs = ["10.244.0.0/16"]
  compat    = "flannel"

  backend "vxlan" {
    vni  = 1
    port = 8472
  }

  # dropped: flanneld's options, which stand in a shell's command line. Remove
  # this block where --ip-masq is not among them.
  masquerade {}
}

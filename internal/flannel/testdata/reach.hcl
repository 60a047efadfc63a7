# flannel's network, from "reach.yml". Comments that begin with "dropped"
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

  # flannel runs without --ip-masq: pods reach the outside with their own
  # addresses.
  # dropped: the accept in FORWARD, which is in flannel's rules. polder has
  # none; `polder status` says whether anything drops pod traffic.

  underlay {
    route_to = "192.0.2.1"
  }
}

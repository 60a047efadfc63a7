# flannel's network, from "reach.yml". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  # On Kubernetes a node's subnet is its podCIDR. Where
  # kube-controller-manager has --node-cidr-mask-size, subnet_len is what that
  # says; 24 and 64 are the default of both.
  # dropped: --kube-subnet-mgr: about how flanneld runs.
  pod_cidrs = ["10.244.0.0/16"]

  backend "vxlan" {
    vni    = 1
    port   = 8472
    device = { ipv4 = "flannel.1" }
  }

  # flannel runs without --ip-masq: pods reach the outside with their own
  # addresses.
  # dropped: the accept in FORWARD, which is in flannel's rules. polder has
  # none; `polder status` says whether anything drops pod traffic.

  underlay {
    route_to = "192.0.2.1"
  }
}

# Nodes are not in flannel's configuration. Each needs a block such as this,
# with its hostname, flannel's public IP, and the base of FLANNEL_SUBNET in
# /run/flannel/subnet.env:
#   node "n1" {
#     addresses = ["192.0.2.11/24"]
#     subnets   = ["10.244.1.0/24"]
#     vtep_mac  = { ipv4 = "…" }
#   }
# The MAC is in /sys/class/net/flannel.1/address.
# `polder import flannel` without a file, on a node, writes its block and
# those of the nodes it knows.

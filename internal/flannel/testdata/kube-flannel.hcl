# flannel's network, from "kube-flannel.yml". Comments that begin with
# "dropped" tell what polder has not, or has otherwise.

cluster = "edge"

network {
  # On Kubernetes a node's subnet is its podCIDR. Where
  # kube-controller-manager has --node-cidr-mask-size, subnet_len is what that
  # says; 24 and 64 are the default of both.
  # dropped: --healthz-port, --kube-subnet-mgr: about how flanneld runs.
  pod_cidrs = ["10.244.0.0/16"]

  # dropped: cni-conf.json, with the plugins "portmap". polder writes no CNI
  # configuration; docs/flannel.md has one for new pods.
  bridge {
    name         = "cni0"
    hairpin_mode = true
  }

  backend "vxlan" {
    vni    = 1
    port   = 8472
    device = { ipv4 = "flannel.1" }
  }

  # dropped: the accept in FORWARD, which is in flannel's rules. polder has
  # none; `polder status` says whether anything drops pod traffic.
  # dropped: EnableNFTables: polder's rules are nftables ones in any case, in
  # tables of their own. flannel's stay behind; docs/flannel.md tells how to
  # remove them.
  masquerade {}
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

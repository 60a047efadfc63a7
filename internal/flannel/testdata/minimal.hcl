# flannel's network, from "minimal.json". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  pod_cidrs = ["10.244.0.0/16"]

  backend "vxlan" {
    vni    = 1
    port   = 8472
    device = { ipv4 = "flannel.1" }
  }

  # The configuration does not say whether flannel masquerades: its option
  # --ip-masq does, which kube-flannel.yml and k3s have. Remove this block
  # where it runs without.
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

# flannel's network, from "ipv6.json". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  # flannel gives pods 50 bytes less than the underlay has, and VXLAN over
  # IPv6 takes 70. `polder migrate check` says which MTU the bridge has to
  # get.
  pod_cidrs  = ["fd00:10:244::/48"]
  subnet_len = { ipv6 = 80 }

  backend "vxlan" {
    vni    = 1
    port   = 8472
    device = { ipv6 = "flannel-v6.1" }
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
#     addresses = ["2001:db8::11/64"]
#     subnets   = ["fd00:10:244:1::/64"]
#     vtep_mac  = { ipv6 = "…" }
#   }
# The MAC is in /sys/class/net/flannel-v6.1/address.
# `polder import flannel` without a file, on a node, writes its block and
# those of the nodes it knows.

# flannel's network, from "mtu.json". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  # flannel's MTU 1400 is that of the underlay; this one is that of pods, 70
  # bytes less.
  # flannel gives pods 50 bytes less than the underlay has, and VXLAN over
  # IPv6 takes 70. `polder migrate check` says which MTU the bridge has to
  # get.
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
  mtu       = 1330

  backend "vxlan" {
    vni    = 1
    port   = 8472
    device = { ipv4 = "flannel.1", ipv6 = "flannel-v6.1" }
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
#     addresses = ["192.0.2.11/24", "2001:db8::11/64"]
#     subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
#     vtep_mac  = { ipv4 = "…", ipv6 = "…" }
#   }
# The MAC is in /sys/class/net/flannel.1/address and in
# /sys/class/net/flannel-v6.1/address.
# `polder import flannel` without a file, on a node, writes its block and
# those of the nodes it knows.

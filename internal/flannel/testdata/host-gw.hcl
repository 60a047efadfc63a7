# flannel's network, from "host-gw.json". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  pod_cidrs  = ["172.16.0.0/12"]
  subnet_len = { ipv4 = 22 }

  backend "host-gw" {}

  # The configuration does not say whether flannel masquerades: its option
  # --ip-masq does, which kube-flannel.yml and k3s have. Remove this block
  # where it runs without.
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
#   }
# `polder import flannel` without a file, on a node, writes its block and
# those of the nodes it knows.

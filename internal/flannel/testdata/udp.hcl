# flannel's network, from "udp.json". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  pod_cidrs = ["10.0.0.0/8"]

  # dropped: the backend "udp": a process copies each packet.
  # polder has "vxlan" and "host-gw", and "vxlan" is proposed. It does not
  # talk to flannel's "udp": pods on different nodes reach each other again
  # when all nodes are switched.
  backend "vxlan" {
    vni  = 1
    port = 8472
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
#   }
# `polder import flannel` without a file, on a node, writes its block and
# those of the nodes it knows.

# flannel's network, from "odd.json". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  # dropped: line 2: Network 10.244.7.1/16 has bits behind its prefix length;
  # flannel takes 10.244.0.0/16.
  # dropped: line 7: Backend.MacPrefix is for Windows.
  # dropped: line 7: "Backend.Encrypt" is no field of flannel's, which ignores
  # it.
  # dropped: line 3: "Netwrok" is no field of flannel's, which ignores it.
  # dropped: line 4: SubnetLen is there again below, which counts.
  # dropped: line 6: "Description" is no field of flannel's, which ignores it.
  # flannel's MTU 9000 is that of the underlay; this one is that of pods, 50
  # bytes less.
  pod_cidrs  = ["10.244.0.0/16"]
  subnet_len = { ipv4 = 25 }
  mtu        = 8950

  # dropped: GBP. polder's VTEPs have no group policy, and it does not take
  # over one that has: the VTEP is made anew.
  # dropped: Learning. polder's VTEPs have static entries, and it does not
  # take over one that learns: the VTEP is made anew.
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

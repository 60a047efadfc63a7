# flannel's network, from "options.yml". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

network {
  # dropped: --iface "eth2": of a node that has not "eth1". Give its block an
  # `underlay`.
  # dropped: --iface "$(NODE_IP)": a node's address. Without `underlay` a node
  # uses the interface that holds its address.
  # dropped: --iface-can-reach "192.0.2.1": flannel comes to it last.
  # dropped: --public-ip "$(NODE_IP)": each node's own, in its `addresses`.
  # dropped: --ip-blackhole-route: polder makes no such route.
  # dropped: --public-ipv6: the value comes from elsewhere.
  # dropped: --v: about how flanneld runs.
  # dropped: the containers "kube-network-policies" beside flanneld. polder
  # enforces NetworkPolicies itself: those of the cluster where the spec has a
  # block `kubernetes`.
  pod_cidrs = ["10.244.0.0/16"]

  # dropped: of the delegate in cni-conf.json: "mtu", "promiscMode".
  # In the place of cni-conf.json the daemon writes a list of plugins of its
  # own: see docs/cni.md.
  bridge {
    name         = "br-pods"
    hairpin_mode = false
  }

  backend "host-gw" {}

  # --iptables-forward-rules=false: polder accepts nothing in FORWARD either.
  masquerade {
    random_fully = false
  }

  underlay {
    interface = "eth1"
  }
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

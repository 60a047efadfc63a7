# flannel's network, from "kube-odd.yml". Comments that begin with "dropped"
# tell what polder has not, or has otherwise.

cluster = "edge"

# Nodes are those of the API server, each with the subnets in its podCIDRs.
# Without a kubeconfig here, the daemon runs in a pod: see
# docs/kubernetes-deploy.md.
kubernetes {}

network {
  # Without compat = "flannel" nodes of polder's and of flannel's do not reach
  # each other.
  # dropped: SubnetLen, SubnetMin, IPv6SubnetLen: a node's subnet is its
  # podCIDR, with flannel, too.
  # flannel gives pods 50 bytes less than the underlay has, and VXLAN over
  # IPv6 takes 70. `polder migrate check` says which MTU the bridge has to
  # get.
  # dropped: --public-ip "$(NODE_IP)": each node's own, the InternalIP of its
  # Node; with compat, the annotation node-public-ip or node-public-ipv6
  # chooses another.
  # dropped: --kube-annotation-prefix: polder knows flannel's annotations by
  # their default prefix only.
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]

  # dropped: of the plugins in cni-conf.json: "bandwidth".
  # In the place of cni-conf.json the daemon writes a list of plugins of its
  # own: see docs/cni.md.
  # flannel's list is of the network "net": start the daemon with --cni-name
  # "net". By that name host-local knows which addresses pods have, and under
  # another one it gives them away again.
  bridge {
    name         = "cni0"
    hairpin_mode = false
  }

  backend "vxlan" {
    vni            = 4096
    port           = 4789
    direct_routing = true
    device         = { ipv4 = "flannel.4096", ipv6 = "flannel-v6.4096" }
  }

  # dropped: the accept in FORWARD, which is in flannel's rules. polder has
  # none; `polder status` says whether anything drops pod traffic.
  masquerade {}
}

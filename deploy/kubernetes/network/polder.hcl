# The spec of all nodes: the pod network, and policies in it. The ranges are an
# example.

cluster = "kubernetes"

# Nodes, namespaces, pods and NetworkPolicies are those of the API server, which the
# daemon reaches by the credentials of its pod. A node has the subnets that are in its
# `spec.podCIDRs`, and is reached at its InternalIP.
kubernetes {}

network {
  # Those of kube-controller-manager's --cluster-cidr. Dual stack is having two.
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]

  bridge {
    name = "cni0"

    # A pod may reach itself through an address of a service.
    hairpin_mode = true
  }

  # Plain routes between nodes on one link, VXLAN between all others.
  backend "vxlan" {
    vni            = 1
    port           = 8472
    direct_routing = true
  }

  masquerade {}
}

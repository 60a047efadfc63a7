# The spec of all nodes: the pod network, and policies in it. The addresses, the
# ranges and the nodes are an example.

cluster = "kubernetes"

# Namespaces, pods and NetworkPolicies are those of the API server, which the
# daemon reaches by the credentials of its pod.
kubernetes {}

network {
  # Those of kube-controller-manager's --cluster-cidr. Dual stack is having two.
  pod_cidrs  = ["10.244.0.0/16", "fd00:10:244::/48"]
  subnet_len = { ipv4 = 24, ipv6 = 64 }

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

# The pod network is between the nodes that are named here, by their names in
# Kubernetes, each with the subnets that are in the Node's `spec.podCIDRs`.

node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:1::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}

node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8:1::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}

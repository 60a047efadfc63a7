# The spec of all nodes: the pod network that flannel has made, and policies in it.
# The ranges and the backend are an example.

cluster = "kubernetes"

# Nodes, namespaces, pods and NetworkPolicies are those of the API server, which
# the daemon reaches by the credentials of its pod.
kubernetes {}

network {
  # Nodes find each other by flannel's annotations, which polder writes for its own,
  # and the VTEPs are flannel's.
  compat = "flannel"

  # Network and IPv6Network of net-conf.json.
  pod_cidrs = ["10.244.0.0/16"]

  bridge {
    name = "cni0"

    # As cni-conf.json has it in flannel's manifest.
    hairpin_mode = true
  }

  # Backend of net-conf.json.
  backend "vxlan" {
    vni  = 1
    port = 8472
  }

  # The option --ip-masq of flanneld.
  masquerade {}
}

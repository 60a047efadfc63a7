# The spec of all nodes: policies alone. Something else makes the pod network.

cluster = "kubernetes"

# Nodes, namespaces, pods and NetworkPolicies are those of the API server, which
# the daemon reaches by the credentials of its pod.
kubernetes {}

enforcement {
  # The bridge that the pods of a node are on: flannel's.
  bridge = "cni0"
}

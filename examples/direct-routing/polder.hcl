# VXLAN where it is needed, plain routes where it is not: nodes on one link send
# each other's pods packets as they are, with the full MTU of the pod network
# and nothing to encapsulate. Nodes behind a router get VXLAN.

cluster = "edge"

# The nodes, as data: one block below makes them all.
variable "nodes" {
  description = "The nodes: where they are, and the number of their subnet."
  type = map(object({
    address = string
    number  = number
  }))
  default = {
    n1 = { address = "192.0.2.11/24", number = 1 }
    n2 = { address = "192.0.2.12/24", number = 2 }
    n3 = { address = "198.51.100.13/24", number = 3 }
  }
}

locals {
  pods = "10.244.0.0/16"

  # Two workloads on each node, at the fifth and the sixth address.
  workloads = { web = 5, db = 6 }
}

network {
  pod_cidrs = [local.pods]

  backend "vxlan" {
    direct_routing = true
  }

  masquerade {}
}

node "node" {
  for_each  = var.nodes
  name      = each.key
  addresses = [each.value.address]

  # A subnet belongs to a node's own number, not to its place in a list: adding
  # a node never moves the subnet of another.
  subnets = [cidrsubnet(local.pods, 8, each.value.number)]
}

# The names are web-n1, web-n2, web-n3.
endpoint "web" {
  for_each  = var.nodes
  node      = each.key
  interface = "veth-web"
  addresses = [cidrhost(cidrsubnet(local.pods, 8, each.value.number), local.workloads.web)]
}

endpoint "db" {
  for_each  = var.nodes
  node      = each.key
  interface = "veth-db"
  addresses = [cidrhost(cidrsubnet(local.pods, 8, each.value.number), local.workloads.db)]
}

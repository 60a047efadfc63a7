# One host with containers or VMs, and nothing else: a bridge, an address range
# for the workloads, and NAT for what they send to the outside.

cluster = "workshop"

network {
  # The range that all nodes' subnets are taken from. A single host could use
  # all of it; a subnet of its own leaves room for a second host later.
  pod_cidrs = ["10.244.0.0/16"]

  bridge {
    name = "cni0"
  }

  # Workloads reach the outside with this host's address.
  masquerade {}
}

node "n1" {
  # The address under which other nodes would reach this one.
  addresses = ["192.0.2.11/24"]
  subnets   = ["10.244.1.0/24"]
}

# polder makes these interfaces ports of the bridge when they appear. The
# bridge holds the first address of the subnet: it is the workloads' gateway.
endpoint "web" {
  node      = "n1"
  interface = "veth-web"
  addresses = ["10.244.1.5"]
}

endpoint "db" {
  node      = "n1"
  interface = "veth-db"
  addresses = ["10.244.1.6"]
}

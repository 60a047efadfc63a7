# Policies without a pod network: something else makes that, flannel or a few
# lines of ip(8), and polder enforces who may reach whom in it. There is no
# network block, so that polder makes no link, address, route or NAT, and changes
# none that it finds. What it writes on a node are the nftables tables `inet
# polder` and `bridge polder`, and the sysctls by which the bridge shows packets
# to them; `polder destroy` takes the tables away and puts the sysctls back.
#
# To try it, on the bridges and routes that the lab makes in place of flannel's:
#
#   polder lab up examples/policy-only
#   polder lab exec n1 -- polder apply
#   polder lab exec n2 -- polder apply --auto-approve
#   polder lab exec n1 -- polder policy show --counters
#
# Beside flannel the subnets are those of its leases, and the endpoints'
# interfaces those that the CNI plugin made: docs/policy.md.

cluster = "edge"

enforcement {
  # The bridge that the endpoints are on, whoever made it.
  bridge = "cni0"
}

# The nodes' own addresses and subnets are peers for policies to name, and known
# to be nobody else's.

node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:1::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}

node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8:1::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}

# With the interface by which each is a port of the bridge, nobody on the bridge
# speaks in another's name. Without it, an endpoint is known by its addresses
# alone.

endpoint "web-1" {
  node      = "n1"
  interface = "veth-web-1"
  addresses = ["10.244.1.5", "fd00:10:244:1::5"]
  labels    = { app = "web" }
}

endpoint "db-1" {
  node      = "n1"
  interface = "veth-db-1"
  addresses = ["10.244.1.6", "fd00:10:244:1::6"]
  labels    = { app = "db" }
}

endpoint "web-2" {
  node      = "n2"
  interface = "veth-web-2"
  addresses = ["10.244.2.5", "fd00:10:244:2::5"]
  labels    = { app = "web" }
}

endpoint "batch" {
  node      = "n2"
  interface = "veth-batch"
  addresses = ["10.244.2.7", "fd00:10:244:2::7"]
  labels    = { app = "batch" }
}

policy "db" {
  selector = "app == 'db'"
  types    = ["ingress", "egress"]

  ingress {
    action = "allow"
    ports  = ["5432/tcp"]
    from { selector = "app == 'web'" }
  }
}

# The batch jobs stay inside of the pod network.
policy "batch" {
  selector = "app == 'batch'"

  egress {
    action = "allow"
    to { cidr = "10.244.0.0/16" }
    to { cidr = "fd00:10:244::/48" }
  }
}

check "web reaches db" {
  for_each = toset(["web-1", "web-2"])
  name     = "${each.key} reaches db-1"

  from   = "endpoint.${each.key}"
  to     = "endpoint.db-1"
  port   = "5432/tcp"
  expect = "allow"
}

check "others" {
  for_each = toset(["endpoint.batch", "node.n2", "outside"])
  name     = "db-1 is closed to ${each.key}"

  from   = each.key
  to     = "endpoint.db-1"
  port   = "5432/tcp"
  expect = "deny"
}

check "batch stays inside" {
  from   = "endpoint.batch"
  to     = "outside"
  port   = "443/tcp"
  expect = "deny"
}

check "batch asks web" {
  from   = "endpoint.batch"
  to     = "endpoint.web-1"
  port   = "icmp"
  expect = "allow"
}

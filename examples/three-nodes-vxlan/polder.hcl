# Three nodes, anywhere: what one pod sends to another travels inside of VXLAN
# from node to node. The network between the nodes needs to know nothing but
# the nodes' own addresses.

cluster = "edge"

network {
  pod_cidrs = ["10.244.0.0/16"]

  # Each node owns a /24 of it: 254 addresses, one of them the gateway's.
  subnet_len = { ipv4 = 24 }

  backend "vxlan" {
    vni  = 1    # all nodes of a cluster have the same
    port = 8472 # Linux's own default; RFC 7348 says 4789
  }

  masquerade {
    # Choose source ports at random, so that two pods that speak to one server
    # rarely compete for the same.
    random_fully = true
  }
}

node "n1" {
  addresses = ["192.0.2.11/24"]
  subnets   = ["10.244.1.0/24"]
}

node "n2" {
  addresses = ["192.0.2.12/24"]
  subnets   = ["10.244.2.0/24"]
}

# n3 is behind a router. With VXLAN that makes no difference.
node "n3" {
  addresses = ["198.51.100.13/24"]
  subnets   = ["10.244.3.0/24"]
}

endpoint "web-1" {
  node      = "n1"
  interface = "veth-web-1"
  addresses = ["10.244.1.5"]
}

endpoint "db-1" {
  node      = "n1"
  interface = "veth-db-1"
  addresses = ["10.244.1.6"]
}

endpoint "web-2" {
  node      = "n2"
  interface = "veth-web-2"
  addresses = ["10.244.2.5"]
}

endpoint "db-2" {
  node      = "n2"
  interface = "veth-db-2"
  addresses = ["10.244.2.6"]
}

endpoint "web-3" {
  node      = "n3"
  interface = "veth-web-3"
  addresses = ["10.244.3.5"]
}

endpoint "db-3" {
  node      = "n3"
  interface = "veth-db-3"
  addresses = ["10.244.3.6"]
}

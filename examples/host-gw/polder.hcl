# All nodes on one link: a plain route through each peer's address is enough.
# There is no encapsulation, so that pods have the full MTU of the link.

cluster = "rack"

network {
  pod_cidrs = ["10.244.0.0/16"]

  backend "host-gw" {}

  masquerade {
    # The office routes the pods' addresses by itself: it sees them as they are.
    except = ["172.16.0.0/12"]
  }
}

# The prefix length says which link a node is on. Nodes on different links are
# a mistake that is found before anything is written.
node "n1" {
  addresses = ["192.0.2.11/24"]
  subnets   = ["10.244.1.0/24"]
}

node "n2" {
  addresses = ["192.0.2.12/24"]
  subnets   = ["10.244.2.0/24"]
}

node "n3" {
  addresses = ["192.0.2.13/24"]
  subnets   = ["10.244.3.0/24"]
}

endpoint "web-1" {
  node      = "n1"
  interface = "veth-web-1"
  addresses = ["10.244.1.5"]
}

endpoint "web-2" {
  node      = "n2"
  interface = "veth-web-2"
  addresses = ["10.244.2.5"]
}

endpoint "web-3" {
  node      = "n3"
  interface = "veth-web-3"
  addresses = ["10.244.3.5"]
}

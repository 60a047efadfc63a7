# Everything at once: IPv4 and IPv6 pods on three nodes, plain routes between
# the two that share a link, VXLAN to the one behind a router, and NAT to the
# outside in both families. This is what `polder lab demo` shows.

cluster = "edge"

network {
  # One range for each family of pods. Dual stack is having two.
  pod_cidrs  = ["10.244.0.0/16", "fd00:10:244::/48"]
  subnet_len = { ipv4 = 24, ipv6 = 64 }

  # Where `polder node add` looks for the next free subnet.
  subnet_min = ["10.244.1.0", "fd00:10:244:1::"]
  subnet_max = ["10.244.99.0", "fd00:10:244:99::"]

  bridge {
    name = "cni0"

    # A pod may reach itself through an address of a service.
    hairpin_mode = true
  }

  backend "vxlan" {
    vni            = 1
    port           = 8472
    direct_routing = true
  }

  masquerade {
    random_fully = true
  }
}

node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:1::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}

node "n2" {
  addresses = ["192.0.2.12/24", "2001:db8:1::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}

node "n3" {
  addresses = ["198.51.100.13/24", "2001:db8:2::13/64"]
  subnets   = ["10.244.3.0/24", "fd00:10:244:3::/64"]
}

endpoint "web-1" {
  node      = "n1"
  interface = "veth-web-1"
  mac       = "02:00:0a:f4:01:05"
  addresses = ["10.244.1.5", "fd00:10:244:1::5"]
  labels    = { app = "web" }
}

endpoint "db-1" {
  node      = "n1"
  interface = "veth-db-1"
  mac       = "02:00:0a:f4:01:06"
  addresses = ["10.244.1.6", "fd00:10:244:1::6"]
  labels    = { app = "db" }
}

endpoint "web-2" {
  node      = "n2"
  interface = "veth-web-2"
  mac       = "02:00:0a:f4:02:05"
  addresses = ["10.244.2.5", "fd00:10:244:2::5"]
  labels    = { app = "web" }
}

endpoint "db-2" {
  node      = "n2"
  interface = "veth-db-2"
  mac       = "02:00:0a:f4:02:06"
  addresses = ["10.244.2.6", "fd00:10:244:2::6"]
  labels    = { app = "db" }
}

endpoint "web-3" {
  node      = "n3"
  interface = "veth-web-3"
  mac       = "02:00:0a:f4:03:05"
  addresses = ["10.244.3.5", "fd00:10:244:3::5"]
  labels    = { app = "web" }
}

endpoint "db-3" {
  node      = "n3"
  interface = "veth-db-3"
  mac       = "02:00:0a:f4:03:06"
  addresses = ["10.244.3.6", "fd00:10:244:3::6"]
  labels    = { app = "db" }
}

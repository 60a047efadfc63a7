# n1 and n2 on one link, n3 on another, and a host outside. A router joins the
# three links. The nodes' own addresses are in the spec.

link "lan" {}
link "far" {}
link "wan" {}

router "r1" {
  link "lan" { addresses = ["192.0.2.1/24", "2001:db8:1::1/64"] }
  link "far" { addresses = ["198.51.100.1/24", "2001:db8:2::1/64"] }
  link "wan" { addresses = ["203.0.113.1/24", "2001:db8:3::1/64"] }
}

node "n1" {
  link "lan" { gateways = ["192.0.2.1", "2001:db8:1::1"] }
}

node "n2" {
  link "lan" { gateways = ["192.0.2.1", "2001:db8:1::1"] }
}

node "n3" {
  link "far" { gateways = ["198.51.100.1", "2001:db8:2::1"] }
}

host "outside" {
  link "wan" {
    addresses = ["203.0.113.99/24", "2001:db8:3::99/64"]
    gateways  = ["203.0.113.1", "2001:db8:3::1"]
  }
}

# n1 on one link and n2 on another, and two hosts outside: one of the office,
# and a stranger. A router joins the three links.

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
  link "far" { gateways = ["198.51.100.1", "2001:db8:2::1"] }
}

host "office" {
  link "wan" {
    addresses = ["203.0.113.99/24", "2001:db8:3::99/64"]
    gateways  = ["203.0.113.1", "2001:db8:3::1"]
  }
}

host "stranger" {
  link "wan" {
    addresses = ["203.0.113.200/24", "2001:db8:3::200/64"]
    gateways  = ["203.0.113.1", "2001:db8:3::1"]
  }
}

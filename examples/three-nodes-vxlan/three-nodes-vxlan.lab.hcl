# n1 and n2 on one link, n3 on another, and a host outside. A router joins the
# three links.

link "lan" {}
link "far" {}
link "wan" {}

router "r1" {
  link "lan" { addresses = ["192.0.2.1/24"] }
  link "far" { addresses = ["198.51.100.1/24"] }
  link "wan" { addresses = ["203.0.113.1/24"] }
}

node "n1" {
  link "lan" { gateways = ["192.0.2.1"] }
}

node "n2" {
  link "lan" { gateways = ["192.0.2.1"] }
}

node "n3" {
  link "far" { gateways = ["198.51.100.1"] }
}

host "outside" {
  link "wan" {
    addresses = ["203.0.113.99/24"]
    gateways  = ["203.0.113.1"]
  }
}

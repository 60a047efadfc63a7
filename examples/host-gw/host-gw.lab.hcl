# Three nodes on one link, and a host outside, behind a router.

link "lan" {}
link "wan" {}

router "r1" {
  link "lan" { addresses = ["192.0.2.1/24"] }
  link "wan" { addresses = ["203.0.113.1/24"] }
}

node "n1" {
  link "lan" { gateways = ["192.0.2.1"] }
}

node "n2" {
  link "lan" { gateways = ["192.0.2.1"] }
}

node "n3" {
  link "lan" { gateways = ["192.0.2.1"] }
}

host "outside" {
  link "wan" {
    addresses = ["203.0.113.99/24"]
    gateways  = ["203.0.113.1"]
  }
}

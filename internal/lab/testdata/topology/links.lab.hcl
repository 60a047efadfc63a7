link "lan" { mtu = 900 }
link "lan" { mtu = "many" }

router "r1" {
  link "lan" { addresses = ["192.0.2.1/24"] }
  link "lan" { addresses = ["192.0.2.2/24"] }
  link "wan" { addresses = ["192.0.2.3/24"] }
}

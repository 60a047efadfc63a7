link "lan" {}

node "n1" {
  link "lan" { gateways = ["198.51.100.1"] }
}
node "n9" {
  link "lan" {}
}
host "web-1" {
  link "lan" { addresses = ["192.0.2.99/24"] }
}
node "n2" {
  link "lan" {}
}

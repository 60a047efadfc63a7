link "lan" {}

node "n1" {}
host "n1" {
  link "lan" { addresses = ["192.0.2.9/24"] }
}
host "Out Side" {
  link "lan" { addresses = ["192.0.2.9/24"] }
}
host "bare" {
  link "lan" {}
}

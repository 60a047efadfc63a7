# Two nodes and a host outside, on one link. The spec has no network block, so
# that the lab makes the pod network: a bridge on each node, and routes.

link "lan" {}

node "n1" {
  link "lan" {}
}

node "n2" {
  link "lan" {}
}

host "outside" {
  link "lan" { addresses = ["192.0.2.99/24", "2001:db8:1::99/64"] }
}

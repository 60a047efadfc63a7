cluster = "edge"

network {
  pod_cidrs = ["10.244.0.0/16"]
}

node "n1" {
  addresses = ["192.0.2.11/24"]
  subnets   = ["10.244.1.0/24"]
}

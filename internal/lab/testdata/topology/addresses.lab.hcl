link "lan" {}

host "h1" {
  link "lan" {
    addresses = ["192.0.2.9", "2001:db8::1/64", 7]
    gateways  = ["192.0.2.1", "2001:db8::2", "2001:db8::3", "here"]
  }
}

host "h2" {
  link "lan" {
    addresses = ["192.0.2.10/24"]
    gateways  = ["198.51.100.1", "192.0.2.1"]
  }
}

# A shop and its operators on two nodes, and who may reach whom. `polder policy
# matrix` shows what it comes to.

cluster = "edge"

# A NetworkPolicy of Kubernetes, for the namespace of the operators.
kubernetes_manifests = ["*.yaml"]

network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]

  backend "vxlan" {}
  masquerade {}
}

node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8:1::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}

node "n2" {
  addresses = ["198.51.100.12/24", "2001:db8:2::12/64"]
  subnets   = ["10.244.2.0/24", "fd00:10:244:2::/64"]
}

namespace "shop" {
  labels = { team = "shop" }
}

namespace "ops" {
  labels = { team = "ops" }
}

# With their MACs, so that nobody on the bridge speaks in another's name.

endpoint "web-1" {
  node      = "n1"
  namespace = "shop"
  interface = "veth-web-1"
  mac       = "02:00:0a:f4:01:05"
  addresses = ["10.244.1.5", "fd00:10:244:1::5"]
  labels    = { app = "web" }
}

endpoint "web-2" {
  node      = "n2"
  namespace = "shop"
  interface = "veth-web-2"
  mac       = "02:00:0a:f4:02:05"
  addresses = ["10.244.2.5", "fd00:10:244:2::5"]
  labels    = { app = "web" }
}

endpoint "db-1" {
  node      = "n1"
  namespace = "shop"
  interface = "veth-db-1"
  mac       = "02:00:0a:f4:01:06"
  addresses = ["10.244.1.6", "fd00:10:244:1::6"]
  labels    = { app = "db" }
  ports     = { sql = "5432/tcp" }
}

endpoint "db-2" {
  node      = "n2"
  namespace = "shop"
  interface = "veth-db-2"
  mac       = "02:00:0a:f4:02:06"
  addresses = ["10.244.2.6", "fd00:10:244:2::6"]
  labels    = { app = "db" }
  ports     = { sql = "5432/tcp" }
}

endpoint "metrics" {
  node      = "n1"
  namespace = "ops"
  interface = "veth-metrics"
  mac       = "02:00:0a:f4:01:07"
  addresses = ["10.244.1.7", "fd00:10:244:1::7"]
  labels    = { app = "metrics" }
  ports     = { push = "9091/tcp" }
}

endpoint "batch" {
  node      = "n2"
  namespace = "ops"
  interface = "veth-batch"
  mac       = "02:00:0a:f4:02:07"
  addresses = ["10.244.2.7", "fd00:10:244:2::7"]
  labels    = { app = "batch" }
}

# Somebody found it doing what it should not.
endpoint "batch-old" {
  node      = "n2"
  namespace = "ops"
  interface = "veth-batch-old"
  mac       = "02:00:0a:f4:02:08"
  addresses = ["10.244.2.8", "fd00:10:244:2::8"]
  labels    = { app = "batch", quarantine = "yes" }
}

network_set "office" {
  cidrs  = ["203.0.113.64/26", "2001:db8:3::99"]
  labels = { zone = "office" }
}

# Before all others, and only about what it must be: the rest it passes on.
tier "platform" {
  order          = 100
  default_action = "pass"
}

policy "quarantine" {
  tier     = "platform"
  selector = "has(quarantine)"

  ingress {
    action = "deny"
  }
  egress {
    action = "deny"
  }
}

policy "web" {
  namespace = "shop"
  selector  = "app == 'web'"

  ingress {
    action = "allow"
    ports  = ["80/tcp", "443/tcp"]
  }
  ingress {
    action = "allow"
    icmp   = ["echo-request"]
  }
  egress {
    action = "allow"
    ports  = ["sql"]
    to { selector = "app == 'db'" }
  }
  egress {
    action = "allow"
    ports  = ["push"]
    to { namespace_selector = "team == 'ops'" }
  }
  egress {
    action = "allow"
    ports  = ["443/tcp"]
    to { network_set = "office" }
  }
}

# A database opens no connections.
policy "db" {
  namespace = "shop"
  selector  = "app == 'db'"
  types     = ["ingress", "egress"]

  ingress {
    action = "allow"
    ports  = ["sql"]
    from { selector = "app == 'web'" }
  }
}

# What the operators run stays inside of the cluster, but for names.
policy "ops" {
  namespace = "ops"

  egress {
    action = "allow"
    to { cidr = "10.244.0.0/16" }
    to { cidr = "fd00:10:244::/48" }
  }
  egress {
    action = "allow"
    ports  = ["53/udp", "53/tcp"]
  }
}

check "the shop is open" {
  from   = "outside"
  to     = "endpoint.web-1"
  port   = "443/tcp"
  expect = "allow"
}

check "web" {
  for_each = toset(["db-1", "db-2"])
  name     = "web reaches ${each.key}"

  from   = "endpoint.web-1"
  to     = "endpoint.${each.key}"
  port   = "sql"
  expect = "allow"
}

check "others" {
  for_each = toset(["endpoint.db-2", "endpoint.batch", "node.n2", "outside"])
  name     = "db-1 is closed to ${each.key}"

  from   = each.key
  to     = "endpoint.db-1"
  port   = "sql"
  expect = "deny"
}

check "the shop reports" {
  from   = "endpoint.web-2"
  to     = "endpoint.metrics"
  port   = "push"
  expect = "allow"
}

check "names are resolved" {
  from   = "endpoint.batch"
  to     = "outside"
  port   = "53/udp"
  expect = "allow"
}

check "quarantine holds" {
  from   = "endpoint.batch-old"
  to     = "endpoint.web-1"
  port   = "80/tcp"
  expect = "deny"
}

check "ping" {
  from   = "endpoint.batch"
  to     = "endpoint.web-1"
  port   = "icmp"
  expect = "allow"
}

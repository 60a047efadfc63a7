package rows

// calicoRules are cases of how rules are evaluated, and of what they match.
var calicoRules = []*example{
	{
		row: "calico 1.2 skipped", name: "a tier that selects others, or for the other direction",
		hcl: tiers + `
			policy "others" {
			  tier     = "b"
			  selector = "pod == 'b'"
			  ingress { action = "deny" }
			}
			policy "egress" {
			  tier  = "a"
			  types = ["egress"]
			  egress {
			    action = "deny"
			    ports  = ["81/tcp"]
			  }
			  egress { action = "pass" }
			}
		`,
		want: `
			outside -> x/a 80/tcp: allow
			outside -> x/a 81/tcp: allow
			outside -> x/b 80/tcp: deny
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
		`,
	},
	{
		row: "calico 1.2 first match", name: "allow and deny are final",
		hcl: `
			policy "p" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "deny"
			    from { selector = "pod == 'c'" }
			  }
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			  ingress {
			    action = "deny"
			    ports  = ["80/tcp", "81/tcp"]
			  }
			  ingress { action = "allow" }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: allow
			z/c -> x/a 80/tcp: deny
			z/c -> x/a 82/tcp: deny
			z/b -> x/a 81/tcp: deny
			z/b -> x/a 82/tcp: allow
		`,
	},
	{
		row: "calico 1.2 pass", name: "skips the rest of the tier",
		hcl: tiers + `
			policy "one" {
			  tier  = "b"
			  order = 1
			  ingress {
			    action = "pass"
			    ports  = ["80/tcp", "82/tcp"]
			  }
			}
			policy "two" {
			  tier  = "b"
			  order = 2
			  ingress { action = "deny" }
			}
			policy "behind" {
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp", "81/tcp"]
			  }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: allow
			z/b -> x/a 81/tcp: deny
			z/b -> x/a 82/tcp: deny
		`,
	},
	{
		row: "calico 1.2 default deny", name: "behind the last policy of a tier",
		hcl: tiers + `
			policy "some" {
			  tier     = "b"
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			}
			policy "behind" {
			  ingress { action = "allow" }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: allow
			z/b -> x/a 81/tcp: deny
			z/b -> x/b 81/tcp: allow
		`,
	},
	{
		row: "calico 1.2 default pass", name: "leaves the rest to the next tier",
		hcl: `
			tier "a" {
			  order          = 10
			  default_action = "pass"
			}
			policy "some" {
			  tier = "a"
			  ingress {
			    action = "deny"
			    ports  = ["80/tcp"]
			  }
			}
			policy "behind" {
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp", "81/tcp"]
			  }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: deny
			z/b -> x/a 81/tcp: allow
			z/b -> x/a 82/tcp: deny
		`,
	},
	{
		row: "calico 1.2 last tier", name: "passed by a rule, and by default",
		hcl: `
			tier "last" {
			  order          = 2000000
			  default_action = "pass"
			}
			policy "rule" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "pass"
			    ports  = ["80/tcp"]
			  }
			}
			policy "default" {
			  tier     = "last"
			  selector = "pod == 'b'"
			  ingress {
			    action = "deny"
			    ports  = ["81/tcp"]
			  }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: allow
			z/b -> x/a 81/tcp: deny
			z/b -> x/b 80/tcp: allow
			z/b -> x/b 81/tcp: deny
		`,
	},
	{
		row: "calico 1.2 log", name: "alone, and before another rule",
		hcl: `
			policy "a" {
			  selector = "pod == 'a'"
			  ingress { action = "log" }
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			}
			policy "b" {
			  selector = "pod == 'b'"
			  ingress { action = "log" }
			}
		`,
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
			z/a -> x/b 80/tcp: deny
			z/a -> x/c 80/tcp: allow
			x/b -> z/a 80/tcp: allow
		`,
	},
	{
		row: "calico 1.2 log", name: "of several peers, and one that another rule has",
		hcl: `
			policy "p" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "log"
			    ports  = ["80/tcp", "80/udp"]
			    from { selector = "pod == 'b'" }
			    from { cidr = "192.0.2.99" }
			    from { cidr = "2001:db8::99" }
			  }
			  ingress {
			    action = "allow"
			    from { selector = "pod == 'b'" }
			  }
			}
		`,
		want: `
			z/b -> x/a 80/tcp: allow
			z/b -> x/a 81/tcp: allow
			outside -> x/a 80/tcp: deny
			outside -> x/a 80/udp: deny
		`,
	},
	{
		row: "calico 1.2 forwarded", name: "a host that is closed",
		hcl: `
			host_endpoint "edge" {
			  node      = "n1"
			  interface = "eth0"
			}
			policy "hosts" {
			  host_selector = "all()"
			  types         = ["ingress", "egress"]
			}
		`,
		want: `
			outside -> n1 80/tcp: deny
			outside -> x/a 80/tcp: allow
			z/a -> x/a 80/tcp: allow
			x/a -> outside 80/udp: allow
			m1 -> m2 80/tcp: allow
			n1 -> z/a 80/tcp: deny
		`,
	},
	{
		row: "calico 1.2 types", name: "no rules, egress rules, and both",
		hcl: `
			policy "none" {
			  selector = "pod == 'a'"
			}
			policy "egress" {
			  selector = "pod == 'b'"
			  egress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			}
			policy "both" {
			  selector = "pod == 'c'"
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			  egress {
			    action = "allow"
			    ports  = ["81/tcp"]
			  }
			}
		`,
		want: `
			outside -> x/a 80/tcp: deny
			x/a -> outside 81/udp: allow
			outside -> x/b 81/tcp: allow
			x/b -> outside 80/tcp: allow
			x/b -> outside 81/tcp: deny
			outside -> x/c 80/tcp: allow
			outside -> x/c 81/tcp: deny
			x/c -> outside 81/tcp: allow
			x/c -> outside 80/tcp: deny
		`,
	},
	{
		row: "calico 1.2 own host", name: "host and pods closed",
		hcl: closed + `
			host_endpoint "edge" {
			  node      = "n1"
			  interface = "*"
			}
			policy "hosts" {
			  host_selector = "all()"
			  types         = ["ingress", "egress"]
			}
			policy "resolver" {
			  order    = 1
			  selector = "pod == 'b'"
			  egress {
			    action = "allow"
			    ports  = ["53/udp"]
			    to { node = "n1" }
			  }
			}
		`,
		want: `
			n1 -> x/a 80/tcp: allow
			n1bridge -> x/a icmp: allow
			x/a -> n1 80/tcp: deny
			x/b -> n1 53/udp: allow
			x/b -> n1bridge 53/udp: allow
			x/b -> n1 53/tcp: deny
			x/b -> n2 53/udp: deny
			z/a -> n1 80/tcp: deny
		`,
	},
	{
		row: "calico 1.3 protocol", name: "by number and by name",
		hcl: `
			policy "a" {
			  selector = "pod == 'a'"
			  ingress {
			    action   = "allow"
			    protocol = "47"
			  }
			  ingress {
			    action   = "allow"
			    protocol = "sctp"
			  }
			}
			policy "b" {
			  selector = "pod == 'b'"
			  ingress {
			    action   = "deny"
			    protocol = "gre"
			  }
			  ingress { action = "allow" }
			}
		`,
		want: `
			z/a -> x/a gre: allow
			z/a -> x/a 82/sctp: allow
			z/a -> x/a 80/tcp: deny
			z/a -> x/a icmp: deny
			z/a -> x/b gre: deny
			z/a -> x/b 80/sctp: allow
		`,
	},
	{
		row: "calico 1.3 icmp", name: "types and codes",
		hcl: `
			policy "a" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    icmp   = ["echo-request"]
			  }
			}
			policy "b" {
			  selector = "pod == 'b'"
			  ingress {
			    action = "allow"
			    icmp   = ["8:1/icmp", "139:1/icmpv6"]
			  }
			}
		`,
		want: `
			z/a -> x/a icmp: allow
			z/a -> x/a 13/icmp: deny
			z/a -> x/a 139/icmpv6: deny
			z/a -> x/a 80/tcp: deny
			z/a -> x/b 8:1/icmp: allow
			z/a -> x/b 8:0/icmp: deny
			z/a -> x/b 139:1/icmpv6: allow
			z/a -> x/b 139:0/icmpv6: deny
			z/a -> x/b 128/icmpv6: deny
		`,
	},
	{
		row: "calico 1.3 nets", name: "with exceptions, allowed and denied",
		hcl: `
			policy "a" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from {
			      cidr   = "10.244.0.0/16"
			      except = ["10.244.2.30/31"]
			    }
			    from {
			      cidr   = "fd00:10:244::/48"
			      except = ["fd00:10:244:2::30/127"]
			    }
			  }
			}
			policy "b" {
			  selector = "pod == 'b'"
			  ingress {
			    action = "deny"
			    from {
			      cidr   = "10.244.2.0/24"
			      except = ["10.244.2.32"]
			    }
			    from { cidr = "fd00:10:244:2::30" }
			  }
			  ingress { action = "allow" }
			}
		`,
		want: `
			z/a -> x/a 80/tcp: deny
			z/b -> x/a 80/tcp: deny
			z/c -> x/a 80/tcp: allow
			y/a -> x/a 80/tcp: allow
			outside -> x/a 80/tcp: deny
			z/a -> x/b 80/tcp: deny
			v4 z/b -> x/b 80/tcp: deny
			v6 z/b -> x/b 80/tcp: allow
			z/c -> x/b 80/tcp: allow
		`,
	},
	{
		row: "calico 1.3 mixed families", name: "one rule, two nets",
		hcl: `
			policy "p" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			    from { cidr = "10.244.2.30" }
			    from { cidr = "fd00:10:244:2::31" }
			  }
			}
		`,
		want: `
			v4 z/a -> x/a 80/tcp: allow
			v6 z/a -> x/a 80/tcp: deny
			v4 z/b -> x/a 80/tcp: deny
			v6 z/b -> x/a 80/tcp: allow
			v4 z/a -> x/a 81/tcp: deny
		`,
	},
	{
		row: "calico 1.3 zero net", name: "with half of it excepted",
		hcl: `
			policy "p" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from {
			      cidr   = "0.0.0.0/0"
			      except = ["128.0.0.0/1"]
			    }
			    from {
			      cidr   = "::/0"
			      except = ["8000::/1"]
			    }
			  }
			}
		`,
		want: `
			v4 outside -> x/a 80/tcp: deny
			v4 z/a -> x/a 80/tcp: allow
			v6 outside -> x/a 80/tcp: allow
			v6 z/a -> x/a 80/tcp: deny
		`,
	},
	{
		row: "calico 1.3 ports", name: "number, range, name, and all",
		hcl: `
			policy "a" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    ports  = ["81/tcp", "85-90/tcp", "web", "*/sctp", "serve-80-udp/udp"]
			  }
			}
		`,
		want: `
			z/a -> x/a 81/tcp: allow
			z/a -> x/a 82/tcp: deny
			z/a -> x/a 85/tcp: allow
			z/a -> x/a 90/tcp: allow
			z/a -> x/a 91/tcp: deny
			z/a -> x/a 8080/tcp: allow
			z/a -> x/a 80/sctp: allow
			z/a -> x/a 80/udp: allow
			z/a -> x/a 81/udp: deny
			z/a -> y/a 7070/tcp: allow
			z/a -> y/a 8080/tcp: deny
		`,
	},
}

package rows

// tiers are two tiers before the default one, which are not in the order of
// their names.
const tiers = `
tier "b" { order = 10 }
tier "a" { order = 20 }
`

// calicoModel are cases of Calico's objects and of the order in which they are
// looked at.
var calicoModel = []*example{
	{
		row: "calico 1.1 global", name: "subjects and peers in all namespaces",
		hcl: `
			policy "p" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from { selector = "pod == 'b'" }
			  }
			}
		`,
		want: `
			x/b -> x/a 80/tcp: allow
			z/b -> x/a 80/tcp: allow
			x/b -> z/a 80/tcp: allow
			x/c -> z/a 80/tcp: deny
			z/c -> y/a 80/tcp: deny
			x/c -> x/b 80/tcp: allow
		`,
	},
	{
		row: "calico 1.1 namespaced", name: "subjects and peers in one namespace",
		hcl: `
			policy "p" {
			  namespace = "x"
			  selector  = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from { selector = "pod == 'b'" }
			  }
			}
		`,
		want: `
			x/b -> x/a 80/tcp: allow
			z/b -> x/a 80/tcp: deny
			y/b -> x/a 80/tcp: deny
			x/c -> z/a 80/tcp: allow
		`,
	},
	{
		row: "calico 1.1 namespaceSelector", name: "some namespaces",
		hcl: `
			policy "p" {
			  namespace_selector = "has(team)"
			  selector           = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from { selector = "pod == 'b'" }
			  }
			}
		`,
		want: `
			y/b -> x/a 80/tcp: allow
			y/c -> x/a 80/tcp: deny
			x/b -> z/a 80/tcp: allow
			x/c -> z/a 80/tcp: deny
			x/c -> y/a 80/tcp: allow
			y/c -> x/b 80/tcp: allow
		`,
	},
	{
		row: "calico 1.1 network set", name: "by name, and by labels without a namespace",
		hcl: `
			network_set "office" {
			  cidrs  = ["192.0.2.99", "2001:db8::99", "10.244.2.32/31", "fd00:10:244:2::32/127"]
			  labels = { zone = "office" }
			}
			policy "named" {
			  selector = "pod == 'a'"
			  ingress {
			    action = "allow"
			    from { network_set = "office" }
			  }
			}
			policy "labelled" {
			  selector = "pod == 'b'"
			  ingress {
			    action = "allow"
			    from { selector = "zone == 'office'" }
			  }
			}
			policy "namespaced" {
			  namespace = "x"
			  selector  = "pod == 'c'"
			  ingress {
			    action = "allow"
			    from { selector = "zone == 'office'" }
			  }
			}
			policy "namespaces" {
			  namespace_selector = "ns == 'y'"
			  selector           = "pod == 'c'"
			  ingress {
			    action = "allow"
			    from {
			      selector           = "zone == 'office'"
			      namespace_selector = "all()"
			    }
			  }
			}
		`,
		want: `
			outside -> x/a 80/tcp: allow
			outside2 -> x/a 80/tcp: deny
			z/c -> x/a 80/tcp: allow
			z/b -> x/a 80/tcp: deny
			outside -> z/b 80/udp: allow
			outside2 -> z/b 80/tcp: deny
			z/c -> x/b 80/tcp: allow
			outside -> x/c 80/tcp: deny
			outside -> y/c 80/tcp: deny
		`,
	},
	{
		row: "calico 1.1 network set", name: "with overlapping and zero nets",
		hcl: `
			network_set "all" {
			  cidrs = ["0.0.0.0/0", "10.244.0.0/16", "10.244.1.0/24", "0.0.0.0/1"]
			}
			policy "p" {
			  selector = "pod == 'a'"
			  types    = ["ingress", "egress"]
			  ingress {
			    action = "allow"
			    from { network_set = "all" }
			  }
			  egress {
			    action = "allow"
			    to { network_set = "all" }
			  }
			}
		`,
		want: `
			v4 outside -> x/a 80/tcp: allow
			v4 z/b -> x/a 80/tcp: allow
			v4 x/a -> outside 80/tcp: allow
			v6 outside -> x/a 80/tcp: deny
			v6 x/a -> z/b 80/tcp: deny
		`,
	},
	{
		row: "calico 1.1 host endpoint", name: "its own policies",
		hcl: `
			host_endpoint "edge" {
			  node      = "n1"
			  interface = "eth0"
			  labels    = { role = "edge" }
			}
			policy "hosts" {
			  host_selector = "role == 'edge'"
			  types         = ["ingress", "egress"]
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			  egress {
			    action = "allow"
			    ports  = ["81/tcp"]
			  }
			}
			policy "workloads" {
			  selector = "role == 'edge'"
			  ingress { action = "allow" }
			}
		`,
		want: `
			outside -> n1 80/tcp: allow
			outside -> n1 81/tcp: deny
			outside -> n1 80/udp: deny
			outside -> n1 icmp: deny
			z/a -> n1 81/tcp: deny
			z/a -> n1 80/tcp: allow
			n1 -> outside 81/tcp: allow
			n1 -> outside 80/tcp: deny
			n1 -> z/a 80/udp: deny
			outside -> n2 81/tcp: allow
			x/a -> n1 8080/tcp: allow
			n1 -> n1bridge 8080/tcp: allow
		`,
	},
	{
		row: "calico 1.1 every interface", name: "one of its own is another matter",
		hcl: `
			host_endpoint "edge" {
			  node      = "n1"
			  interface = "eth0"
			  labels    = { role = "edge" }
			}
			host_endpoint "one" {
			  node      = "n1"
			  interface = "*"
			  labels    = { role = "any" }
			}
			host_endpoint "two" {
			  node      = "n2"
			  interface = "*"
			  labels    = { role = "any" }
			}
			policy "hosts" {
			  host_selector = "role == 'any'"
			  types         = ["ingress", "egress"]
			}
		`,
		want: `
			outside -> n1 80/tcp: allow
			n1 -> outside 80/tcp: allow
			outside -> n2 80/tcp: deny
			n2 -> outside 80/tcp: deny
			x/a -> n2 80/tcp: deny
			z/a -> n2 80/tcp: allow
			n2 -> z/a 80/tcp: allow
			x/a -> n1 80/tcp: allow
		`,
	},
	{
		row: "calico 1.1 one host endpoint", name: "two of an interface",
		hcl: `
			host_endpoint "one" {
			  node      = "n1"
			  interface = "eth0"
			}
			host_endpoint "two" {
			  node      = "n1"
			  interface = "eth0"
			}
		`,
		refused: []string{"Duplicate interface"},
	},
	{
		row: "calico 1.1 failsafe", name: "the usual ones, and others",
		hcl: `
			host_endpoint "one" {
			  node      = "n1"
			  interface = "eth0"
			}
			host_endpoint "two" {
			  node              = "n2"
			  interface         = "eth0"
			  failsafe_inbound  = ["90/tcp"]
			  failsafe_outbound = []
			}
			policy "hosts" {
			  host_selector = "all()"
			  types         = ["ingress", "egress"]
			  ingress { action = "deny" }
			  egress { action = "deny" }
			}
		`,
		want: `
			outside -> n1 22/tcp: allow
			outside -> n1 22/udp: deny
			outside -> n1 53/udp: deny
			outside -> n1 80/tcp: deny
			n1 -> outside 53/udp: allow
			n1 -> outside 22/tcp: deny
			outside -> n2 90/tcp: allow
			outside -> n2 22/tcp: deny
			n2 -> outside 53/udp: deny
		`,
	},
	{
		row: "calico 1.1 tier", name: "by order, and not by name",
		hcl: tiers + `
			policy "late" {
			  tier = "a"
			  ingress { action = "deny" }
			}
			policy "early" {
			  tier = "b"
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			  ingress { action = "pass" }
			}
		`,
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
		`,
	},
	{
		row: "calico 1.1 tier", name: "of one order, by name",
		hcl: `
			tier "b" { order = 10 }
			tier "a" { order = 10 }
			policy "early" {
			  tier = "a"
			  ingress {
			    action = "deny"
			    ports  = ["81/tcp"]
			  }
			  ingress { action = "pass" }
			}
			policy "late" {
			  tier = "b"
			  ingress { action = "allow" }
			}
		`,
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
		`,
	},
	{
		row: "calico 1.1 tier that is none", name: "one of another name",
		hcl:     `policy "p" { tier = "elsewhere" }`,
		refused: []string{"elsewhere"},
	},
	{
		row: "calico 1.1 order", name: "by order, those without one last",
		hcl: `
			policy "a" {
			  ingress { action = "deny" }
			}
			policy "b" {
			  order = 20
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp", "81/tcp"]
			  }
			}
			policy "c" {
			  order = 10
			  ingress {
			    action = "deny"
			    ports  = ["81/tcp"]
			  }
			}
			policy "d" {
			  order = -0.5
			  ingress {
			    action = "allow"
			    ports  = ["82/tcp"]
			  }
			}
		`,
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
			z/a -> x/a 82/tcp: allow
			z/a -> x/a 8080/tcp: deny
		`,
	},
	{
		row: "calico 1.1 order", name: "of one order, by name",
		hcl: `
			policy "b" {
			  order = 10
			  ingress { action = "deny" }
			}
			policy "a" {
			  order = 10
			  ingress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			}
			policy "d" {
			  selector = "pod == 'c'"
			  egress { action = "deny" }
			}
			policy "c" {
			  selector = "pod == 'c'"
			  egress {
			    action = "allow"
			    ports  = ["80/tcp"]
			  }
			}
		`,
		want: `
			z/a -> x/a 80/tcp: allow
			z/a -> x/a 81/tcp: deny
			x/c -> outside 80/tcp: allow
			x/c -> outside 81/tcp: deny
		`,
	},
}

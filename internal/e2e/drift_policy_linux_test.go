package e2e

import (
	"fmt"
	"testing"
)

// policedCluster has an object of each kind that policies come to on n1: chains
// of both directions and families, maps, sets of endpoints, of ranges, of named
// ports and of ports, and a host endpoint's.
var policedCluster = cluster{backend: backendDirect, pods: dual, more: `
tier "platform" {
  order          = 1
  default_action = "pass"
}
policy "first" {
  tier = "platform"
  types = ["ingress", "egress"]
}
policy "all" {
  types = ["ingress", "egress"]
  ingress {
    action = "allow"
    from { selector = "all()" }
    from { cidr = "192.0.4.0/24" }
    ports = ["80/tcp", "90-99/tcp", "http"]
  }
  egress { action = "allow" }
}
policy "host" {
  host_selector = "all()"
  ingress {
    action = "allow"
    from { cidr = "192.0.2.0/23" }
  }
}
host_endpoint "n1" {
  node      = "n1"
  interface = "eth0"
}
`}

// firstObject is the shell's way to the first object of a kind in a table whose
// name begins in a certain way: what policies come to is named by its content.
const firstObject = `x=$(nft list table inet polder | awk '$1 == "%s" && $2 ~ /^%s/ { print $2; exit }'); [ -n "$x" ]; `

func first(kind, prefix string) string { return fmt.Sprintf(firstObject, kind, prefix) }

// policyDamages are what somebody may do to what policies come to.
var policyDamages = []struct{ name, command string }{
	{"policy chain flushed", first("chain", "ingress4-") + `nft flush chain inet polder $x`},
	{"policy chain flushed, egress, IPv6", first("chain", "egress6-") + `nft flush chain inet polder $x`},
	{"host endpoint's chain flushed", first("chain", "host_ingress4-") + `nft flush chain inet polder $x`},
	{"policy base chain flushed", `nft flush chain inet polder policy_forward`},
	{"policy base chain deleted", `nft 'flush chain inet polder policy_input; delete chain inet polder policy_input'`},
	{"rule before all policies", `nft insert rule inet polder policy_forward accept`},
	{"guard of policies flushed", `nft flush chain inet polder policy_guard`},
	{"element of a dispatching map deleted", first("map", "ingress4-") + `nft delete element inet polder $x '{ 10.244.1.5 }'`},
	{"element of a dispatching map leads elsewhere", first("map", "egress4-") + `nft "delete element inet polder $x { 10.244.1.5 }; add element inet polder $x { 10.244.1.5 : accept }"`},
	{"peer deleted", first("set", "peers4-") + `nft delete element inet polder $x '{ 10.244.2.5 }'`},
	{"peer added", first("set", "peers6-") + `nft add element inet polder $x '{ 2001:db8::99 }'`},
	{"range added", first("set", "cidrs4-") + `nft add element inet polder $x '{ 203.0.113.0/24 }'`},
	{"port added", first("set", "ports-") + `nft add element inet polder $x '{ 22 }'`},
	{"isolated endpoint deleted", first("set", "isolated4-") + `nft delete element inet polder $x '{ 10.244.1.6 }'`},
	{"the bridge's table deleted", `nft delete table bridge polder`},
	{"the bridge's claims emptied", `nft flush set bridge polder claimed_ports`},
	{"the bridge's chain flushed", `nft flush chain bridge polder spoof_ip4`},
}

// TestPolicyDamages: whatever somebody does to what policies come to, a plan
// sees, and one apply undoes; a daemon does so by itself.
func TestPolicyDamages(t *testing.T) {
	t.Parallel()
	w := policedCluster.watched(t)
	for _, d := range policyDamages {
		t.Run(d.name, func(t *testing.T) {
			w.n.t = t
			w.repaired(drift{d.name, []string{d.command}}, 1)
		})
	}
	w.n.t = t
}

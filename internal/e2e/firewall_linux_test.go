package e2e

import (
	"strings"
	"testing"

	"github.com/poldernet/polder/reconcile"
)

// TestForeignFirewallIsTold: a chain of somebody else that would drop what
// pods send is named in the plan, with what to do, and is left alone; one that
// accepts is not mentioned.
func TestForeignFirewallIsTold(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: ipv4})
	n.sh("n1", `nft add table ip filter
		nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'
		nft add chain ip filter INPUT '{ type filter hook input priority 0; policy accept; }'`)
	before := n.ruleset("n1")
	plan := n.plan("n1", n.spec, reconcile.ModeApply)
	told := strings.Join(plan.Warnings, "\n")
	for _, want := range []string{"ip filter FORWARD", "policy drop", "DOCKER-USER"} {
		if !strings.Contains(told, want) {
			t.Errorf("the warnings do not say %q: %q", want, told)
		}
	}
	if strings.Contains(told, "INPUT") {
		t.Errorf("a chain that accepts is mentioned: %q", told)
	}
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.apply("n1", nil, reconcile.ModeDestroy)
	if after := n.ruleset("n1"); after != before {
		t.Errorf("the firewall changed:\n%s", difference(before, after))
	}
}

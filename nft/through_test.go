package nft

import "testing"

// TestSettledWaits: what comes after the first stop waits, and the first does not.
func TestSettledWaits(t *testing.T) {
	ruleset := func(chains ...string) Ruleset {
		table := Table{Family: INet, Name: TableName}
		for _, name := range chains {
			table.Chains = append(table.Chains, Chain{Name: name, Base: &Base{Type: "filter", Hook: "forward", Policy: PolicyAccept}})
		}
		return Ruleset{table}
	}
	plan := Settled(ruleset(), ruleset("a"), ruleset("a", "b"), ruleset("b"))
	waited, before, after := false, 0, 0
	for _, s := range plan.stages() {
		waited = waited || s.waits()
		if waited {
			after += len(s.transactions)
		} else {
			before += len(s.transactions)
		}
	}
	if before != 1 || after != 2 {
		t.Errorf("%d transactions before it waits, %d behind\n%s", before, after, plan)
	}
	if len(plan.Changes()) != 1 {
		t.Errorf("it says that it changes %v", plan.Changes())
	}
}

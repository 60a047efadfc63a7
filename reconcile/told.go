package reconcile

import (
	"fmt"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/policy/spoof"
)

// tell is what a plan of rules comes to for people: policies and endpoints
// instead of the objects that stand for them, and a table of always the same
// chains as a whole.
func (v *view) tell(rules *nft.Plan) []change.Change {
	changes := policy.Changes(rules.Changes(), inetTable(v.wanted.ruleset), inetTable(v.rules), v.names)
	table := spoof.Table.String()
	made := -1
	for i, c := range changes {
		if c.Kind == "table" && c.Name == table && c.Action == change.Create {
			made = i
		}
	}
	if made < 0 {
		return changes
	}
	count := map[string]int{}
	for i, c := range changes {
		if c.Kind != "table" && strings.HasPrefix(c.Name, table+" ") {
			changes[i].Detail = true
			count[c.Kind]++
		}
	}
	for _, kind := range []string{"chain", "set", "map", "counter"} {
		if n := count[kind]; n > 0 {
			changes[made].Attrs = append(changes[made].Attrs, change.Attr{Name: kind + "s", After: fmt.Sprint(n)})
		}
	}
	return changes
}

package remains

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
)

// Rules are those of a program in one table.
type Rules struct {
	Of   Program `json:"of"`
	Name string  `json:"name"` // "table ip flannel-ipv4", "chain ip nat FLANNEL-POSTRTG"
	Does string  `json:"does"` // "masquerades"

	masquerades bool
	removals    []nft.Removal
	changes     []change.Change // what removals come to
	conflicts   []change.Conflict
	warnings    []string
}

// asked says whether a table may hold something of a program's.
func asked(id nft.TableID) bool {
	for _, p := range []Program{Flannel, Felix} {
		if slices.Contains(iptablesTables[p], id.Name) {
			return true
		}
	}
	return slices.Contains([]string{"flannel-ipv4", "flannel-ipv6", "calico"}, id.Name)
}

// rulesOf finds what is flannel's and Felix's among the tables of a node: tables of
// their own, or chains in those of iptables, with the rules that lead there.
func rulesOf(tables map[nft.TableID][]nft.ForeignChain) (found []Rules) {
	for _, id := range slices.SortedFunc(maps.Keys(tables), func(a, b nft.TableID) int { return cmp.Compare(a.String(), b.String()) }) {
		for _, p := range []Program{Flannel, Felix} {
			if p.ownTable(id, tables[id]) {
				found = append(found, wholeTable(p, id, tables[id]))
			} else if r, ok := partOfTable(p, id, tables[id]); ok {
				found = append(found, r)
			}
		}
	}
	return found
}

// does says what is lost with a program's rules in a table.
func (p Program) does(table string) string {
	switch {
	case p == Felix && table == "filter" || table == "calico":
		return "enforces Felix's policies"
	case p == Felix:
		return "belongs to Felix's policies"
	case table == "filter":
		return "accepts pod traffic in FORWARD"
	case table == "nat":
		return "masquerades"
	}
	return "masquerades, and accepts in forward"
}

func wholeTable(p Program, id nft.TableID, chains []nft.ForeignChain) Rules {
	rules := 0
	for _, c := range chains {
		rules += len(c.Rules)
	}
	return Rules{
		Of: p, Name: "table " + id.String(), Does: p.does(id.Name), masquerades: masquerades(chains),
		removals: []nft.Removal{{Table: id}},
		changes:  []change.Change{gone("table", id.String(), "chains", len(chains), "rules", rules)},
	}
}

// gone is the change that removes something with so much in it.
func gone(kind, name string, counts ...any) change.Change {
	c := change.Change{Action: change.Delete, Kind: kind, Name: name}
	for i := 0; i+1 < len(counts); i += 2 {
		c.Attrs = append(c.Attrs, change.Attr{Name: fmt.Sprint(counts[i]), Before: fmt.Sprint(counts[i+1])})
	}
	return c
}

// masquerades says that chains of a program give pods the node's address.
func masquerades(chains []nft.ForeignChain) bool {
	return slices.ContainsFunc(chains, func(c nft.ForeignChain) bool {
		masquerade := strings.Contains(c.Name, "nat-outgoing") || c.Name == "FLANNEL-POSTRTG" || c.Name == "postrtg"
		return masquerade && len(c.Rules) > 0
	})
}

// partOfTable finds a program's chains in a table that others have chains in, too.
func partOfTable(p Program, id nft.TableID, chains []nft.ForeignChain) (Rules, bool) {
	var own []nft.ForeignChain
	r := Rules{Of: p, Does: p.does(id.Name)}
	var jumps, emptied []change.Change
	var last []nft.Removal
	for _, c := range chains {
		if p.ownChain(id, c.Name) {
			own = append(own, c)
			last = append(last, nft.Removal{Table: id, Chain: c.Name})
			emptied = append(emptied, gone("chain", id.String()+" "+c.Name, "rules", len(c.Rules)))
			continue
		}
		stays := c
		stays.Rules = nil
		for n, rule := range c.Rules {
			target := rule.Target()
			if !p.ownRule(rule) {
				stays.Rules = append(stays.Rules, rule)
				if p.ownChain(id, target) {
					r.conflicts = append(r.conflicts, leads(p, id, c.Name, n+1, target))
				}
				continue
			}
			r.removals = append(r.removals, nft.Removal{Table: id, Chain: c.Name, Handle: rule.Handle})
			jumps = append(jumps, jump(id, c.Name, n+1, target))
		}
		if d, drops := stays.Drops(id); drops && len(stays.Rules) < len(c.Rules) {
			r.warnings = append(r.warnings, cutOff(p, d))
		}
	}
	r.removals, r.changes = append(r.removals, last...), append(jumps, emptied...)
	r.masquerades = masquerades(own)
	if len(r.conflicts) > 0 {
		r.removals, r.changes, r.warnings = nil, nil, nil
	}
	switch {
	case p == Felix:
		r.Name = fmt.Sprintf("chains cali-* in table %s", id)
	case len(own) == 1:
		r.Name = "chain " + id.String() + " " + own[0].Name
	default:
		r.Name = "chains FLANNEL-* in table " + id.String()
	}
	return r, len(own)+len(jumps) > 0
}

// jump is a rule that goes. Rules have no names: people count them, as iptables
// does with --line-numbers.
func jump(id nft.TableID, chain string, number int, target string) change.Change {
	c := gone("rule", id.String()+" "+chain+" "+strconv.Itoa(number))
	if target != "" {
		c.Attrs = []change.Attr{{Name: "jump", Before: target}}
	}
	return c
}

// leads is the conflict of a rule that its author would have to remove: without it
// the chain cannot go, and nobody here knows what it is for.
func leads(p Program, id nft.TableID, chain string, number int, target string) change.Conflict {
	program := "iptables"
	if id.Family == nft.IP6 {
		program = "ip6tables"
	}
	return change.Conflict{
		Kind: "rule", Name: fmt.Sprintf("%s %s %d", id, chain, number),
		Reason: fmt.Sprintf("it leads to %s and is not %s's, so that %s's rules in table %s stay", target, p, p, id),
		Remedy: fmt.Sprintf("remove it with `%s -t %s -D %s %d`, if it is of no use any more", program, id.Name, chain, number),
	}
}

// cutOff warns of a chain that drops what the removed rules let pass.
func cutOff(p Program, d nft.ForeignDrop) string {
	return fmt.Sprintf("chain %s %s drops what no rule of it accepts (%s), and what %s's rules accept there is no longer accepted. "+
		"Where no other rule accepts pod traffic, add one before.", d.Table, d.Chain, d.Reason, p)
}

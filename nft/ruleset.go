// Package nft holds an nftables ruleset as a value: tables with their chains,
// rules, sets and counters, at the level of the expressions that the kernel
// runs. A value is built by a compiler, printed in nft(8) syntax, read back
// from the kernel, compared object by object, and committed in transactions
// that no packet in flight can see half of (see Plan).
//
// Only the kernel_*_linux.go files know netlink; the rest is pure.
package nft

import (
	"cmp"
	"slices"
	"strings"
)

// TableName is the name of every table of ours, in whichever family. The name
// is what ownership means for nftables: nothing outside these tables is ever
// written.
const TableName = "polder"

// MaxName is the length of the longest name of a chain, set or counter, in bytes
// (NFT_NAME_MAXLEN less the NUL). The kernel does not look at the bytes, except
// that a % in a set's name makes it choose another one
// (nf_tables_set_alloc_name in net/netfilter/nf_tables_api.c). nft(8) reads
// names that begin with a letter and go on with letters, digits and / \ _ .
// only (string in its src/scanner.l).
const MaxName = 255

// Family is the family of a table (nfgenmsg.nfgen_family), in nft(8)'s words.
type Family string

// The families, see NFPROTO_* in <linux/netfilter.h>.
const (
	INet   Family = "inet"
	IP     Family = "ip"
	IP6    Family = "ip6"
	ARP    Family = "arp"
	Bridge Family = "bridge"
	NetDev Family = "netdev"
)

// TableID identifies a table.
type TableID struct {
	Family Family
	Name   string
}

// String is "inet polder".
func (id TableID) String() string { return string(id.Family) + " " + id.Name }

// Ruleset is a set of tables, of different IDs. The order means nothing.
type Ruleset []Table

// Table finds a table.
func (rs Ruleset) Table(id TableID) (Table, bool) {
	for _, t := range rs {
		if t.ID() == id {
			return t, true
		}
	}
	return Table{}, false
}

// String is the ruleset in nft(8) syntax, tables sorted.
func (rs Ruleset) String() string {
	sorted := slices.Clone(rs)
	slices.SortFunc(sorted, func(a, b Table) int { return cmp.Compare(a.ID().String(), b.ID().String()) })
	texts := make([]string, len(sorted))
	for i, t := range sorted {
		texts[i] = t.String()
	}
	return strings.Join(texts, "\n")
}

// Table is one table. The order of chains, sets and counters means nothing.
// Compilers produce fragments, tables that hold a part of what a table should;
// Merge joins them.
type Table struct {
	Family Family
	Name   string
	// Dormant takes all base chains off their hooks (NFT_TABLE_F_DORMANT). We
	// never want it, but somebody may set it on our table.
	Dormant  bool     `json:",omitzero"`
	Chains   []Chain  `json:",omitzero"`
	Sets     []Set    `json:",omitzero"`
	Counters []string `json:",omitzero"` // named counters; their values are not part of a ruleset
	// Objects are stateful objects of other kinds than counters, as "quota q".
	// We never make any: those read back are removed.
	Objects []Object `json:",omitzero"`
}

// ID is what identifies the table.
func (t Table) ID() TableID { return TableID{t.Family, t.Name} }

// Empty says that the table holds nothing.
func (t Table) Empty() bool {
	return len(t.Chains) == 0 && len(t.Sets) == 0 && len(t.Counters) == 0 && len(t.Objects) == 0
}

// Chain finds a chain.
func (t Table) Chain(name string) (Chain, bool) { return find(t.Chains, name) }

// Set finds a set or map.
func (t Table) Set(name string) (Set, bool) { return find(t.Sets, name) }

// Shares says that both tables are one value, whatever else is equal to it.
func (t Table) Shares(o Table) bool {
	return t.ID() == o.ID() && shared(t.Chains, o.Chains) && shared(t.Sets, o.Sets) && shared(t.Counters, o.Counters)
}

// Object is a stateful object that is not a counter.
type Object struct {
	Name string
	Type uint32 // NFT_OBJECT_*, <linux/netfilter/nf_tables.h>
}

// Chain is a chain: a base chain if it hangs on a hook, else one that rules
// and map elements jump to.
type Chain struct {
	Name  string
	Base  *Base  `json:",omitzero"` // nil: a regular chain
	Rules []Rule `json:",omitzero"`
}

func (c Chain) key() string { return c.Name }

// Equal says that both chains do the same.
func (c Chain) Equal(o Chain) bool {
	return c.Name == o.Name && equalBase(c.Base, o.Base) && equalRules(c.Rules, o.Rules)
}

func equalRules(a, b []Rule) bool { return shared(a, b) || slices.EqualFunc(a, b, Rule.Equal) }

func equalBase(a, b *Base) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// Base is what a base chain adds to a chain.
type Base struct {
	Type     string // "filter", "nat" or "route"
	Hook     string // "prerouting", "input", "forward", "output", "postrouting"; netdev: "ingress", "egress"
	Priority int32  // smaller runs earlier
	Policy   Policy
}

// Policy is the verdict on a packet that reaches the end of a base chain.
type Policy string

// The policies.
const (
	PolicyAccept Policy = "accept"
	PolicyDrop   Policy = "drop"
)

// The priorities of the kernel's own hooks (enum nf_ip_hook_priorities), which
// are those of the bridge's inet hooks as well.
const (
	PriorityRaw    int32 = -300 // before connection tracking
	PriorityFilter int32 = 0
	PrioritySrcNAT int32 = 100
)

// Rule is a list of expressions, run in order until one says "no match" or
// gives a verdict. Comment is shown by nft(8); it carries no identity.
type Rule struct {
	Exprs   []Expr
	Comment string
}

// Equal says that both rules do the same and say the same. Counter values do
// not take part. An expression that was not understood equals none of ours.
func (r Rule) Equal(o Rule) bool {
	return r.Comment == o.Comment && slices.Equal(r.Exprs, o.Exprs)
}

// Merge joins fragments of one table: the union of their objects. Where two
// fragments fill a chain or set of one name, the rules and elements of the
// earlier fragment come first and its properties hold; fragments agree on
// these. The table's ID is the first fragment's. What one fragment alone has of
// rules and elements the table shares with it.
func Merge(fragments ...Table) Table {
	var merged Table
	if len(fragments) > 0 {
		merged.Family, merged.Name = fragments[0].Family, fragments[0].Name
	}
	chains, sets := map[string]int{}, map[string]int{}
	for _, f := range fragments {
		for _, c := range f.Chains {
			if i, there := chains[c.Name]; there {
				merged.Chains[i].Rules = slices.Concat(merged.Chains[i].Rules, c.Rules)
				continue
			}
			chains[c.Name] = len(merged.Chains)
			merged.Chains = append(merged.Chains, c)
		}
		for _, s := range f.Sets {
			if i, there := sets[s.Name]; there {
				merged.Sets[i].Elements = canonicalElements(slices.Concat(merged.Sets[i].Elements, s.Elements))
				continue
			}
			sets[s.Name] = len(merged.Sets)
			merged.Sets = append(merged.Sets, s)
		}
		merged.Counters = append(merged.Counters, f.Counters...)
		merged.Objects = append(merged.Objects, f.Objects...)
	}
	return merged.ordered()
}

// canonical sorts everything whose order means nothing and drops duplicates,
// so that equal tables are equal values. The receiver is left alone.
func (t Table) canonical() Table {
	t = t.ordered()
	for i := range t.Sets {
		t.Sets[i].Elements = canonicalElements(t.Sets[i].Elements)
	}
	return t
}

// ordered is canonical but for the elements of sets.
func (t Table) ordered() Table {
	t.Chains = slices.Clone(t.Chains)
	slices.SortFunc(t.Chains, func(a, b Chain) int { return cmp.Compare(a.Name, b.Name) })
	t.Sets = slices.Clone(t.Sets)
	slices.SortFunc(t.Sets, func(a, b Set) int { return cmp.Compare(a.Name, b.Name) })
	t.Counters = slices.Clone(t.Counters)
	slices.Sort(t.Counters)
	t.Counters = slices.Compact(t.Counters)
	t.Objects = slices.Clone(t.Objects)
	slices.SortFunc(t.Objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return t
}

// sideBySide makes two tables canonical, except for elements that they share:
// these do not differ.
func sideBySide(a, b Table) (Table, Table) {
	a, b = a.ordered(), b.ordered()
	inStep(a.Sets, b.Sets, Set.key, func(a, b *Set) {
		if a != nil && b != nil && shared(a.Elements, b.Elements) && a.sameSchema(*b) {
			return
		}
		for _, s := range []*Set{a, b} {
			if s != nil {
				s.Elements = canonicalElements(s.Elements)
			}
		}
	})
	return a, b
}

// shared says that two lists are one.
func shared[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// named is an object that is found by its name within its table.
type named interface{ key() string }

func find[T named](list []T, name string) (T, bool) {
	if i := slices.IndexFunc(list, func(v T) bool { return v.key() == name }); i >= 0 {
		return list[i], true
	}
	var none T
	return none, false
}

// inStep goes through two lists that are in order: what both have is given
// together, and what one of them has with nil for the other.
func inStep[T any](a, b []T, key func(T) string, each func(a, b *T)) {
	for len(a) > 0 || len(b) > 0 {
		c := -1
		switch {
		case len(a) == 0:
			c = 1
		case len(b) > 0:
			c = cmp.Compare(key(a[0]), key(b[0]))
		}
		switch {
		case c < 0:
			each(&a[0], nil)
			a = a[1:]
		case c > 0:
			each(nil, &b[0])
			b = b[1:]
		default:
			each(&a[0], &b[0])
			a, b = a[1:], b[1:]
		}
	}
}

func itself(name string) string { return name }

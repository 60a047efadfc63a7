package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

// picture is what a ruleset says about policies, as far as its comments tell.
// What is in the kernel is compared with what is wanted by it, in terms of
// policies and endpoints: nobody has to remember the spec from before.
type picture struct {
	policies map[string]map[string]string // what each rule says, by policy and "ingress 1"
	// judged are the policies of an address, "db, web", by direction.
	judged map[netip.Addr]map[spec.Direction]string
}

var (
	// ruleComment is the form of a comment by comment().
	ruleComment = regexp.MustCompile(`^((?:policy|networkpolicy) \S+) ((?:ingress|egress) \d+): (.*)$`)
	// lastComment is the form of a comment by lastOf().
	lastComment = regexp.MustCompile(`^tier (\S+): (deny|pass) after (.*)$`)
	dispatchMap = regexp.MustCompile(`^(ingress|egress)[46]-`)
)

// picturing reads the comments of the chains that the addresses of endpoints
// lead to.
func picturing(t nft.Table) picture {
	p := picture{policies: map[string]map[string]string{}, judged: map[netip.Addr]map[spec.Direction]string{}}
	l := ruleset{chains: make(map[string]nft.Chain, len(t.Chains)), maps: make(map[string]nft.Set)}
	for _, c := range t.Chains {
		l.chains[c.Name] = c
	}
	for _, s := range t.Sets {
		if s.Verdicts {
			l.maps[s.Name] = s
		}
	}
	for name := range l.chains {
		if strings.HasPrefix(name, "host_") { // found by interfaces, which are no addresses
			l.seen = map[string]bool{}
			p.chain(l, name, nil)
		}
	}
	used := lookedUp(t)
	known := map[string]string{} // the policies of a chain, by its name
	for _, m := range t.Sets {
		d := dispatchMap.FindStringSubmatch(m.Name)
		if d == nil || !m.Verdicts || !used[m.Name] {
			continue
		}
		for _, e := range m.Elements {
			list, ok := known[e.Verdict.Chain]
			if !ok {
				l.seen = map[string]bool{}
				list = strings.Join(p.chain(l, e.Verdict.Chain, nil), ", ")
				known[e.Verdict.Chain] = list
			}
			a, ok := netip.AddrFromSlice([]byte(e.Key))
			if !ok {
				continue
			}
			if p.judged[a] == nil {
				p.judged[a] = map[spec.Direction]string{}
			}
			p.judged[a][spec.Direction(d[1])] = list
		}
	}
	return p
}

// InForce counts what a table in the kernel enforces: policies, and the addresses of
// endpoints that they isolate.
func InForce(t nft.Table) (policies, addresses int) {
	p := picturing(t)
	return len(p.policies), len(p.judged)
}

// ruleset finds a table's objects by their names.
type ruleset struct {
	chains map[string]nft.Chain
	maps   map[string]nft.Set
	seen   map[string]bool // chains, of one endpoint
}

// chain takes in the rules of a chain and of those that it goes on to, and adds
// its policies to a list.
func (p picture) chain(l ruleset, name string, list []string) []string {
	if l.seen[name] {
		return list
	}
	l.seen[name] = true
	for _, r := range l.chains[name].Rules {
		if m := ruleComment.FindStringSubmatch(r.Comment); m != nil {
			p.policy(m[1])[m[2]] = m[3]
		}
		last := lastComment.FindStringSubmatch(r.Comment)
		if last != nil {
			for id := range strings.SplitSeq(last[3], ", ") {
				p.policy(id)
				if !slices.Contains(list, id) {
					list = append(list, id)
				}
			}
		}
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case nft.Verdict:
				if last != nil && e.Kind == nft.VerdictGoto {
					list = p.chain(l, e.Chain, list)
				}
			case nft.Lookup: // of the service
				if e.Verdict {
					for _, to := range l.maps[e.Set].Elements {
						list = p.chain(l, to.Verdict.Chain, list)
					}
				}
			}
		}
	}
	return list
}

func (p picture) policy(id string) map[string]string {
	if p.policies[id] == nil {
		p.policies[id] = map[string]string{}
	}
	return p.policies[id]
}

// Changes tells the changes of a table in terms of policies: which policies are
// there, what their rules say, and whom they are about. The nftables objects by
// which that is done come after them, as details.
//
// names are the endpoints' names, by address.
func Changes(objects []change.Change, want, have nft.Table, names func(netip.Addr) string) []change.Change {
	if !slices.ContainsFunc(objects, func(c change.Change) bool { return c.Kind != "set" || ownObject.MatchString(c.Name) }) {
		return objects // such as the peers of the guard, which nodes change that come and go
	}
	w, h := picturing(want), picturing(have)
	told := slices.Concat(policyChanges(w, h), judgedChanges(w, h, names), memberChanges(want, have, names))
	if len(told) == 0 {
		return objects
	}
	for i, c := range objects {
		objects[i].Detail = explained(c, want, have)
	}
	return append(told, objects...)
}

// ownObject is the form of the names of objects that are made anew rather than
// changed, and of those that switch to them.
var ownObject = regexp.MustCompile(`^inet polder (c_.*|policy_(forward|input|output|(host_)?guard|no_connection|no_verdict|unclaimed|refused)|((host_)?(ingress|egress)[46](_services)?|log|(peers|named|cidrs)[46]|ports|isolated(_ingress)?[46]|local[46]|claimed[46]|(not_)?host_links)-[0-9a-f]{20}(_\d+)?)$`)

// explained says that a change of an object is how another change is done. That
// an object changes which is never changed is what somebody else did.
func explained(c change.Change, want, have nft.Table) bool {
	if strings.HasPrefix(c.Name, "bridge polder isolated") {
		return true
	}
	if !ownObject.MatchString(c.Name) {
		return false
	}
	switch c.Action {
	case change.Create, change.Delete:
		return true
	}
	if chain, ok := strings.CutPrefix(c.Name, "inet polder "); ok && strings.HasPrefix(chain, "policy_") {
		return !strangeRules(chainOf(want, chain), chainOf(have, chain))
	}
	set, _ := strings.CutPrefix(c.Name, "inet polder ")
	return living(set) // see memberChanges
}

// finders are what rules of base chains find endpoints and hosts by. The names
// end in what the objects hold, which is what changes with them.
var (
	finders    = regexp.MustCompile(`^((host_)?(ingress|egress)[46]|isolated(_ingress)?[46]|local[46]|claimed[46]|(not_)?host_links)-`)
	nameEnding = regexp.MustCompile(`-[0-9a-f]{20}(_\d+)?`)
)

// strangeRules says that a base chain has rules that it had in no version: they
// are not wanted, by other names of objects either, and find nobody.
func strangeRules(want, have []nft.Rule) bool {
	wanted := map[string]bool{}
	for _, r := range want {
		wanted[nameEnding.ReplaceAllString(r.String(), "")] = true
	}
	return slices.ContainsFunc(have, func(r nft.Rule) bool {
		return !wanted[nameEnding.ReplaceAllString(r.String(), "")] && !slices.ContainsFunc(r.Exprs, func(e nft.Expr) bool {
			l, ok := e.(nft.Lookup)
			return ok && finders.MatchString(l.Set)
		})
	})
}

func chainOf(t nft.Table, name string) []nft.Rule {
	i := slices.IndexFunc(t.Chains, func(c nft.Chain) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return t.Chains[i].Rules
}

func policyChanges(want, have picture) []change.Change {
	var list []change.Change
	for _, id := range keys(want.policies, have.policies) {
		kind, name, _ := strings.Cut(id, " ")
		c := change.Change{Action: change.Update, Kind: kind, Name: name}
		w, wanted := want.policies[id]
		h, there := have.policies[id]
		switch {
		case !there:
			c.Action = change.Create
		case !wanted:
			c.Action = change.Delete
		}
		for _, number := range keys(w, h) {
			if w[number] != h[number] {
				c.Attrs = append(c.Attrs, change.Attr{Name: number, Before: h[number], After: w[number]})
			} else {
				c.Unchanged++
			}
		}
		if c.Action != change.Update || len(c.Attrs) > 0 {
			list = append(list, c)
		}
	}
	return list
}

// judgedChanges tell which endpoints' policies change, one change an endpoint.
func judgedChanges(want, have picture, names func(netip.Addr) string) []change.Change {
	byName := map[string]change.Change{}
	var order []string
	for _, a := range sortedAddrs(want.judged, have.judged) {
		name := names(a)
		if name == "" {
			name = a.String()
		}
		c := change.Change{Action: change.Update, Kind: "isolation", Name: name}
		for _, d := range spec.Directions {
			if w, h := want.judged[a][d], have.judged[a][d]; w != h {
				c.Attrs = append(c.Attrs, change.Attr{Name: string(d), Before: h, After: w})
			}
		}
		if len(c.Attrs) == 0 {
			continue
		}
		switch {
		case len(have.judged[a]) == 0:
			c.Action = change.Create
		case len(want.judged[a]) == 0:
			c.Action = change.Delete
		}
		if _, ok := byName[name]; !ok { // its other addresses say the same
			order = append(order, name)
			byName[name] = c
		}
	}
	list := make([]change.Change, len(order))
	for i, name := range order {
		list[i] = byName[name]
	}
	return list
}

// maxTold bounds the members that a change spells out.
const maxTold = 8

// memberChanges tell who comes to the living sets, and who leaves them.
func memberChanges(want, have nft.Table, names func(netip.Addr) string) []change.Change {
	suffix, _, _ := suffixes(have)
	texts := memberTexts(want)
	type move struct {
		members
		stay int
	}
	moves := map[string]move{} // by what the set is called; both families are called the same
	for _, s := range want.Sets {
		base := baseName(s.Name)
		old, there := have.Set(base + suffix[base])
		if !there || !living(s.Name) {
			continue
		}
		d := difference(s.Elements, old.Elements)
		if len(d.added)+len(d.removed) == 0 {
			continue
		}
		m := moves[texts[s.Name]]
		n := keyAddress(s.Key)
		m.added, m.removed = append(m.added, addressesOf(d.added, n)...), append(m.removed, addressesOf(d.removed, n)...)
		m.stay += len(s.Elements) - len(d.added)
		moves[texts[s.Name]] = m
	}
	var list []change.Change
	for _, text := range slices.Sorted(maps.Keys(moves)) {
		m := moves[text]
		c := change.Change{Action: change.Update, Kind: "members", Name: text, Unchanged: m.stay}
		if len(m.removed) > 0 {
			c.Attrs = append(c.Attrs, change.Attr{Name: "endpoints", Before: memberList(m.removed, names)})
		}
		if len(m.added) > 0 {
			c.Attrs = append(c.Attrs, change.Attr{Name: "endpoints", After: memberList(m.added, names)})
		}
		list = append(list, c)
	}
	return list
}

// living says that a set is a living one.
func living(name string) bool {
	return strings.HasPrefix(name, "peers") || strings.HasPrefix(name, "named")
}

// addressesOf are the addresses with which keys begin, each once.
func addressesOf(keys []nft.Data, length int) []nft.Data {
	list := make([]nft.Data, len(keys))
	for i, k := range keys {
		list[i] = k[:min(length, len(k))]
	}
	return slices.Compact(list)
}

// memberTexts finds for each living set a rule that uses it: what its comment says names the set better than the set's own name.
func memberTexts(t nft.Table) map[string]string {
	texts := map[string]string{}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			m := ruleComment.FindStringSubmatch(r.Comment)
			if m == nil {
				continue
			}
			for _, e := range r.Exprs {
				if l, ok := e.(nft.Lookup); ok && living(l.Set) {
					if text := fmt.Sprintf("%s %s", m[1], m[2]); texts[l.Set] == "" || text < texts[l.Set] {
						texts[l.Set] = text
					}
				}
			}
		}
	}
	return texts
}

func memberList(keys []nft.Data, names func(netip.Addr) string) string {
	var texts []string
	for _, k := range keys[:min(len(keys), maxTold)] {
		a, _ := netip.AddrFromSlice([]byte(k))
		text := a.String()
		if name := names(a); name != "" {
			text = name + " " + text
		}
		texts = append(texts, text)
	}
	if more := len(keys) - maxTold; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}

// keys are the keys of both maps, in order.
func keys[V any](a, b map[string]V) []string {
	list := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	// "ingress 2" comes before "ingress 10".
	slices.SortFunc(list, func(a, b string) int {
		x, y := strings.TrimRight(a, "0123456789"), strings.TrimRight(b, "0123456789")
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	return slices.Compact(list)
}

func sortedAddrs[V any](a, b map[netip.Addr]V) []netip.Addr {
	list := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

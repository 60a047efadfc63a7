package nft

import (
	"bytes"
	"fmt"
	"slices"
)

// ForeignChain is a chain of somebody else's table.
type ForeignChain struct {
	Name  string
	Base  *Base // nil: a regular chain
	Rules []ForeignRule
}

// ForeignRule is a rule of somebody else's.
type ForeignRule struct {
	Rule
	Handle uint64 // what the kernel calls it in its table
}

// Comments are what a rule says of itself: iptables writes it into an expression,
// as often as it is asked to.
func (r ForeignRule) Comments() []string {
	var list []string
	if r.Comment != "" {
		list = append(list, r.Comment)
	}
	const (
		nftaMatchName = 1
		nftaMatchInfo = 3
	)
	for _, e := range r.Exprs {
		u, ok := e.(Unknown)
		if !ok || u.Name != "match" {
			continue
		}
		var f fields
		if f.parse([]byte(u.Data)) == nil && f.text(nftaMatchName) == "comment" {
			// struct xt_comment_info, <linux/netfilter/xt_comment.h>.
			list = append(list, string(bytes.ToValidUTF8(trimNUL(f[nftaMatchInfo]), nil)))
		}
	}
	return list
}

// Target is the chain that the rule jumps or goes to, "" for none.
func (r ForeignRule) Target() string {
	for _, e := range r.Exprs {
		if v, ok := e.(Verdict); ok && v.Chain != "" {
			return v.Chain
		}
	}
	return ""
}

// Removal is an object of somebody else's that is to go: a table, or with a Chain
// this one, or with a Handle the rule of the chain.
type Removal struct {
	Table  TableID
	Chain  string
	Handle uint64
}

// String names the object as nft(8) does.
func (r Removal) String() string {
	switch {
	case r.Chain == "":
		return fmt.Sprintf("delete table %s", r.Table)
	case r.Handle == 0:
		return fmt.Sprintf("delete chain %s %s", r.Table, r.Chain)
	default:
		return fmt.Sprintf("delete rule %s %s handle %d", r.Table, r.Chain, r.Handle)
	}
}

// encodeRemovals writes a transaction that takes objects of others away. Chains are
// emptied before any is deleted: they jump to one another.
func encodeRemovals(list []Removal) batch {
	var rules, chains, tables []Removal
	for _, r := range list {
		switch {
		case r.Chain == "":
			tables = append(tables, r)
		case r.Handle == 0:
			chains = append(chains, r)
		default:
			rules = append(rules, r)
		}
	}
	const nftaRuleHandle = 3
	inOrder := slices.Concat(rules, chains, chains, tables)
	m := newBatch(func(i int) string { return inOrder[i].String() })
	for i, r := range inOrder {
		switch {
		case r.Chain == "":
			m.step(i, step{r.Table, delTable{}})
		case r.Handle != 0:
			m.object(i, r.Table, delRule, 0)
			m.text(ofChain, r.Chain)
			m.long(nftaRuleHandle, r.Handle)
			m.end()
		case i < len(rules)+len(chains):
			m.step(i, step{r.Table, flushChain{r.Chain}})
		default:
			m.step(i, step{r.Table, delChain{r.Chain}})
		}
	}
	m.finish()
	return m
}

// decodeHandle reads the handle of NFT_MSG_NEWRULE.
func decodeHandle(b []byte) (uint64, error) {
	const nftaRuleHandle = 3
	var f fields
	_, err := f.object(b)
	return f.long(nftaRuleHandle), err
}

// Drops says whether the chain drops what its rules do not accept.
func (c ForeignChain) Drops(table TableID) (ForeignDrop, bool) {
	own := Chain{Name: c.Name, Base: c.Base}
	if n := len(c.Rules); n > 0 {
		own.Rules = []Rule{c.Rules[n-1].Rule}
	}
	return foreignDrop(table, own)
}

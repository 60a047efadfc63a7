package nft

import (
	"fmt"
	"strings"
)

// op is one operation of a transaction. The model runs it on values, the
// kernel writer sends it as a message.
type op interface {
	// text is the operation as a line of an nft(8) script.
	text(TableID) string
	// run does it to a model, or fails as the kernel would.
	run(*modelTable) error
}

type (
	// addTable makes a table, or wakes a dormant one.
	addTable struct{}
	// delTable deletes a table with all that is in it.
	delTable struct{}
	// addChain makes an empty chain.
	addChain struct {
		name string
		base *Base
	}
	// setPolicy changes the policy of a base chain, the one property that
	// can be changed in place.
	setPolicy struct {
		name string
		base Base
	}
	// delChain deletes a chain with its rules; nothing may refer to it.
	delChain struct{ name string }
	// flushChain deletes the rules of a chain.
	flushChain struct{ name string }
	// addRule adds a rule at the end of a chain.
	addRule struct {
		chain string
		rule  Rule
	}
	// addSet makes an empty set; elements of its value are not looked at.
	addSet struct{ set Set }
	// delSet deletes a set with its elements; nothing may refer to it.
	delSet struct{ set Set }
	// addElements adds elements that are not there.
	addElements struct {
		set      Set
		elements []Element
	}
	// delElements deletes elements that are there.
	delElements struct {
		set      Set
		elements []Element
	}
	// addCounter makes a named counter.
	addCounter struct{ name string }
	// delObject deletes a counter or another stateful object.
	delObject struct{ object Object }
)

func (addTable) text(id TableID) string { return "add table " + id.String() }

func (delTable) text(id TableID) string { return "delete table " + id.String() }

func (o addChain) text(id TableID) string {
	if o.base == nil {
		return fmt.Sprintf("add chain %s %s", id, o.name)
	}
	return fmt.Sprintf("add chain %s %s { %s }", id, o.name, o.base)
}

func (o setPolicy) text(id TableID) string {
	return fmt.Sprintf("chain %s %s { policy %s; }", id, o.name, o.base.Policy)
}

func (o delChain) text(id TableID) string { return fmt.Sprintf("delete chain %s %s", id, o.name) }

func (o flushChain) text(id TableID) string { return fmt.Sprintf("flush chain %s %s", id, o.name) }

func (o addRule) text(id TableID) string {
	return fmt.Sprintf("add rule %s %s %s", id, o.chain, o.rule)
}

func (o addSet) text(id TableID) string {
	text := fmt.Sprintf("add %s %s %s { type %s", o.set.kind(), id, o.set.Name, o.set.keyText())
	if o.set.Verdicts {
		text += " : verdict"
	}
	if o.set.Interval {
		text += "; flags interval"
	}
	return text + "; }"
}

func (o delSet) text(id TableID) string {
	return fmt.Sprintf("delete %s %s %s", o.set.kind(), id, o.set.Name)
}

func (o addElements) text(id TableID) string { return elementsText("add", id, o.set, o.elements) }

func (o delElements) text(id TableID) string { return elementsText("delete", id, o.set, o.elements) }

func elementsText(verb string, id TableID, s Set, elements []Element) string {
	texts := make([]string, len(elements))
	for i, e := range elements {
		texts[i] = s.element(e)
	}
	return fmt.Sprintf("%s element %s %s { %s }", verb, id, s.Name, strings.Join(texts, ", "))
}

func (o addCounter) text(id TableID) string { return fmt.Sprintf("add counter %s %s", id, o.name) }

func (o delObject) text(id TableID) string {
	kind, name, _ := strings.Cut(o.object.String(), " ")
	return fmt.Sprintf("delete %s %s %s", kind, id, name)
}

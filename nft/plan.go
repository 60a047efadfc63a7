package nft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/change"
)

// Plan is what it takes to make one ruleset of another, in three stages.
//
// A transaction is atomic for the ruleset but not for a packet in flight: the
// packet runs the rules of the generation in which it entered its base chain,
// but looks sets and maps up as they are at the look-up (nft_set_elem_active
// takes the current generation's mask). Measured, packets fell through a chain
// that was made and filled by the very transaction that pointed a map at it.
// Hence:
//
//   - Prepare makes what nothing refers to yet: new sets and regular chains,
//     filled.
//   - Switch adds members to living sets, and then, in one transaction, changes
//     rules, base chains and the elements of verdict maps. What was to be prepared
//     is made in that one as well, where only new rules lead there (see
//     differ.joined): a packet runs all of these or none.
//   - Retire removes what nothing uses any more, and members of living sets. Where
//     chains or maps are among it, no packet that runs the old rules is on its
//     way any more: elements of a map that is deleted stop matching at once, and
//     a chain's old rules are kept for one commit only (nf_tables_commit_chain
//     overwrites those of the generation before the last).
//
// A packet that is on its way over both the switch and the retirement of members
// may find an address in none of two sets between which it moves, the one being
// looked up too early and the other too late. That is not waited for: the wait, a
// grace period of RCU, is many times what a change of members costs, and the
// packet would have to take longer than two commits.
//
// Two things cannot be done without a packet in flight noticing. A base chain
// whose hook or priority changes is deleted and made anew within one
// transaction, since two chains of one name cannot live side by side; and so is
// a set whose key changes under its name, with the rules that use it. For a
// plain set that is safe, because the old rules keep the old set; the elements
// of a verdict map however stop matching at once. Compilers therefore give sets
// of another meaning another name.
type Plan struct {
	Prepare, Switch, Retire Stage

	before  Ruleset // what was observed
	tell    []func() []change.Change
	then    *Plan // what comes after it; nil: nothing
	settled bool  // it begins when packets that are on their way are gone
}

// Empty says that there is nothing to do.
func (p *Plan) Empty() bool {
	return len(p.Prepare.transactions) == 0 && len(p.Switch.transactions) == 0 && len(p.Retire.transactions) == 0 &&
		(p.then == nil || p.then.Empty())
}

// Changes lists the differences for display: one for each table, chain, set
// and counter that the plan touches.
func (p *Plan) Changes() []change.Change {
	var list []change.Change
	for _, of := range p.tell {
		list = append(list, of()...)
	}
	return list
}

// stages lists the stages in order, with their names.
func (p *Plan) stages() []namedStage {
	list := []namedStage{{"prepare", p.Prepare, p.settled}, {"switch", p.Switch, false}, {"retire", p.Retire, false}}
	if p.then != nil {
		list = append(list, p.then.stages()...)
	}
	return list
}

type namedStage struct {
	name string
	Stage
	settled bool
}

// String is the plan as an nft(8) script, stage by stage.
func (p *Plan) String() string {
	var b strings.Builder
	for _, s := range p.stages() {
		if len(s.transactions) > 0 {
			b.WriteString("# " + s.name + "\n" + s.String())
		}
	}
	return b.String()
}

// Stage is a sequence of transactions.
type Stage struct {
	transactions []transaction
}

// String is the stage as an nft(8) script, with an empty line between
// transactions.
func (s Stage) String() string {
	texts := make([]string, len(s.transactions))
	for i, tx := range s.transactions {
		texts[i] = tx.String()
	}
	return strings.Join(texts, "\n")
}

// waits says that the stage begins when packets that are on their way are gone: it
// takes away what they would miss, or is to begin then.
func (s namedStage) waits() bool {
	if s.settled {
		return true
	}
	if s.name != "retire" {
		return false
	}
	for _, tx := range s.transactions {
		for _, st := range tx {
			switch o := st.op.(type) {
			case delTable, flushChain, delChain:
				return true
			case delSet:
				if o.set.Verdicts {
					return true
				}
			}
		}
	}
	return false
}

// tables are the tables that the plan is about.
func (p *Plan) tables() []TableID {
	ids := tableIDs(p.before)
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			for _, st := range tx {
				if !slices.Contains(ids, st.table) {
					ids = append(ids, st.table)
				}
			}
		}
	}
	return ids
}

// expected is the ruleset after the first n transactions.
func (p *Plan) expected(n int) (Ruleset, error) {
	m := modelOf(p.before)
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			if n == 0 {
				return m.ruleset(), nil
			}
			n--
			if err := m.run(tx); err != nil {
				return nil, err
			}
		}
	}
	return m.ruleset(), nil
}

// Step is a transaction of a plan: its stage, "prepare", "switch" or "retire",
// and what it leaves behind.
type Step struct {
	Stage   string
	Ruleset Ruleset
}

// Steps are the plan's transactions, one after the other. The last one leaves
// the desired ruleset behind.
func (p *Plan) Steps() ([]Step, error) {
	var steps []Step
	m := modelOf(p.before)
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			if err := m.run(tx); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			steps = append(steps, Step{s.name, m.ruleset()})
		}
	}
	return steps, nil
}

// StageError says which stage of a plan failed. The stages before it are
// done; its own transactions may be in part, each of them wholly or not at all.
type StageError struct {
	Stage string // "prepare", "switch" or "retire"
	Err   error
}

func (e *StageError) Error() string { return fmt.Sprintf("nftables: %s: %v", e.Stage, e.Err) }

func (e *StageError) Unwrap() error { return e.Err }

// transaction is what the kernel commits as a whole.
type transaction []step

// step is one operation on a table.
type step struct {
	table TableID
	op    op
}

// brief is the beginning of an operation's text, with what it is about.
func brief(s step) string {
	words := strings.Fields(s.op.text(s.table))
	return strings.Join(words[:min(len(words), 5)], " ")
}

// String is the transaction as an nft(8) script.
func (tx transaction) String() string {
	var b strings.Builder
	for _, s := range tx {
		b.WriteString(s.op.text(s.table) + "\n")
	}
	return b.String()
}

// maxElements bounds the elements of one transaction: a batch is one sendmsg,
// which fails with EMSGSIZE beyond the socket's send buffer (208 KiB where
// SO_SNDBUFFORCE is not permitted; an element takes some 50 bytes).
const maxElements = 2000

// pack splits steps into transactions that fit into a send buffer. The order
// stays.
func pack(steps []step) []transaction {
	var (
		packed []transaction
		tx     transaction
		weight int
	)
	add := func(s step, w int) {
		if weight > 0 && weight+w > maxElements {
			packed, tx, weight = append(packed, tx), nil, 0
		}
		tx, weight = append(tx, s), weight+w
	}
	for _, s := range steps {
		switch o := s.op.(type) {
		case addElements:
			for _, part := range chunks(o.elements) {
				add(step{s.table, addElements{o.set, part}}, len(part))
			}
		case delElements:
			for _, part := range chunks(o.elements) {
				add(step{s.table, delElements{o.set, part}}, len(part))
			}
		case addRule:
			add(s, 10) // some 500 bytes
		default:
			add(s, 2)
		}
	}
	if len(tx) > 0 {
		packed = append(packed, tx)
	}
	return packed
}

func chunks(list []Element) [][]Element {
	var parts [][]Element
	for ; len(list) > maxElements; list = list[maxElements:] {
		parts = append(parts, list[:maxElements])
	}
	return append(parts, list)
}

package nft

import (
	"slices"
)

// Model is the nftables of a network namespace as polder understands the
// kernel: tables, the generation that they are in, and what is told of commits.
// It stands in for the kernel where thousands of cases are to be tested; a test
// holds it to a real one. One goroutine at a time.
type Model struct {
	tables  Ruleset
	gen     Generation
	commits []Commit
}

// NewModel has no tables.
func NewModel() *Model { return &Model{gen: 1} }

// Read is what a Reader's Read would give.
func (m *Model) Read(ids ...TableID) (Ruleset, Generation) {
	var rs Ruleset
	for _, t := range m.tables {
		if slices.Contains(ids, t.ID()) {
			rs = append(rs, t)
		}
	}
	return rs, m.gen
}

// Commits are those of which the kernel has told since the last call.
func (m *Model) Commits() []Commit {
	commits := m.commits
	m.commits = nil
	return commits
}

// Put is a commit by somebody else, who writes a table anew.
func (m *Model) Put(process string, t Table) {
	m.drop(t.ID())
	m.tables = append(m.tables, t.canonical())
	m.told(Commit{Process: process, Tables: []TableID{t.ID()}, Chains: len(t.Chains) > 0})
}

// Delete is a commit by somebody else, who deletes a table.
func (m *Model) Delete(process string, id TableID) {
	t, there := m.tables.Table(id)
	if !there {
		return
	}
	m.drop(id)
	m.told(Commit{Process: process, Tables: []TableID{id}, Chains: len(t.Chains) > 0})
}

func (m *Model) drop(id TableID) {
	m.tables = slices.DeleteFunc(slices.Clone(m.tables), func(t Table) bool { return t.ID() == id })
}

// told begins a generation.
func (m *Model) told(c Commit) {
	m.gen = m.gen.next()
	c.Generation = m.gen
	m.commits = append(m.commits, c)
}

// Commit is what a Writer's Commit would do. It asks before each transaction
// whether that is to fail: the kernel compares generations before all else.
func (m *Model) Commit(p *Plan, gen Generation, fails func() error) (Generation, error) {
	done := 0
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			var err error
			if gen != m.gen {
				err = m.renew(p, done)
			}
			if err == nil {
				err = fails()
			}
			if err == nil {
				err = m.run(tx)
			}
			if err != nil {
				return 0, &StageError{s.name, err}
			}
			gen = m.gen
			done++
		}
	}
	return gen, nil
}

// Try is what a Writer's Try would do.
func (m *Model) Try(t Table, fails func() error) error {
	if err := fails(); err != nil {
		return err
	}
	return m.run(trial(t))
}

// renew finds out whether a commit by others touched our tables.
func (m *Model) renew(p *Plan, done int) error {
	expected, err := p.expected(done)
	if err != nil {
		return err
	}
	if now, _ := m.Read(p.tables()...); !equalRulesets(now, expected) {
		return ErrStale
	}
	return nil
}

func (m *Model) run(tx transaction) error {
	next := modelOf(m.tables)
	if err := next.run(tx); err != nil {
		return err
	}
	m.tables = next.ruleset()
	c := Commit{Process: "polder"}
	for _, s := range tx {
		if !slices.Contains(c.Tables, s.table) {
			c.Tables = append(c.Tables, s.table)
		}
		switch s.op.(type) {
		case addChain, delChain, setPolicy, flushChain, addRule:
			c.Chains = true
		}
	}
	m.told(c)
	return nil
}

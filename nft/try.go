package nft

// tryTable is the table in which things are tried. It is made and deleted in one
// transaction: nobody ever sees it.
const tryTable = TableName + "-try"

// trial is a transaction that makes a table's counters, sets without their
// elements, and regular chains, in a table that it deletes again. The kernel
// looks at each of them as if it were to stay.
func trial(t Table) transaction {
	id := TableID{t.Family, tryTable}
	var tx transaction
	add := func(o op) { tx = append(tx, step{id, o}) }
	add(addTable{})
	for _, c := range t.Counters {
		add(addCounter{c})
	}
	for _, s := range t.Sets {
		add(addSet{s})
	}
	for _, c := range t.Chains {
		add(addChain{name: c.Name})
		for _, r := range c.Rules {
			add(addRule{c.Name, r})
		}
	}
	add(delTable{})
	return tx
}

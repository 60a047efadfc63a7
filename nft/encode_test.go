package nft

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What is written of rules is what is read of them, and every message is about the
// table.
func TestEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := drawTable(t, "a table")
		var tx transaction
		rules := map[string][]Rule{}
		for _, c := range table.Chains {
			for _, r := range c.Rules {
				tx, rules[c.Name] = append(tx, step{table.ID(), addRule{c.Name, r}}), append(rules[c.Name], r)
			}
		}
		for _, s := range table.Sets {
			tx = append(tx, step{table.ID(), addSet{s}}, step{table.ID(), addElements{s, s.Elements}})
		}
		m, err := encode(tx)
		if err != nil {
			t.Fatal(err)
		}
		err = messages(m.b, func(h messageHeader, data []byte) error {
			if h.kind>>8 != nfnlSubsysNFTables {
				return nil
			}
			of := tx[m.steps[h.sequence-1]]
			var f fields
			if id, err := f.object(data); err != nil || id != table.ID() {
				t.Fatalf("%s is about %s (%v)", brief(of), id, err)
			}
			if _, ok := of.op.(addRule); !ok {
				return nil
			}
			_, chain, r, err := decodeRule(data)
			if err != nil || len(rules[chain]) == 0 || !r.Equal(rules[chain][0]) {
				t.Fatalf("rule %s of chain %s became %s (%v)", of.op.(addRule).rule, chain, r, err)
			}
			rules[chain] = slices.Delete(rules[chain], 0, 1)
			return nil
		})
		for chain, left := range rules {
			if err != nil || len(left) > 0 {
				t.Fatalf("%d rules of chain %s are missing (%v)", len(left), chain, err)
			}
		}
	})
}

// A message holds no more elements than its length can say.
func TestEncodeManyElements(t *testing.T) {
	s := Set{Name: "s", Key: []Type{TypeIPv6Addr}, Interval: true}
	for i := range 3000 {
		e := Exact(Data([]byte{0xfd, 15: byte(i), 14: byte(i >> 8)}))
		s.Elements = append(s.Elements, e)
	}
	m, err := encode(transaction{{TableID{INet, TableName}, addElements{s, s.Elements}}})
	if err != nil {
		t.Fatal(err)
	}
	var raws []rawElement
	err = messages(m.b, func(h messageHeader, data []byte) (err error) {
		if h.kind>>8 == nfnlSubsysNFTables {
			raws, err = decodeElements(raws, data)
		}
		return err
	})
	got, failure := assemble(s, raws)
	if err != nil || failure != nil || !slices.Equal(got, s.Elements) || len(m.steps) < 2 {
		t.Errorf("%d elements in %d messages became %d (%v, %v)", len(s.Elements), len(m.steps), len(got), err, failure)
	}
}

package nft

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// What other hands do to our table is seen, and undone.
func TestDriftIsSeenAndRepaired(t *testing.T) {
	k := newKernel(t)
	for _, script := range []string{
		"add table inet polder { flags dormant; }",
		"flush table inet polder",
		"add chain inet polder extra",
		"add chain inet polder extra { type filter hook input priority 0; }",
		"chain inet polder forward { policy accept; }",
		"flush chain inet polder early",
		"add rule inet polder work accept",
		"insert rule inet polder work accept",
		"add rule inet polder forward accept", // a duplicate
		"add rule inet polder work tcp option maxseg size set 1200",
		"add rule inet polder work meta mark set 1",
		"add rule inet polder work limit rate 1/second accept",
		"add rule inet polder work limit rate over 1/second accept",
		"add rule inet polder work log",
		"add rule inet polder work log group 0 queue-threshold 2",
		"add rule inet polder work tcp dport { 1, 2 } accept", // an anonymous set
		"add set inet polder extra { type ipv4_addr; }",
		"add map inet polder extra { type ipv4_addr : ipv4_addr; elements = { 1.2.3.4 : 5.6.7.8 }; }",
		"add set inet polder extra { type ipv4_addr . iface_index; size 7; flags timeout; }",
		"add element inet polder links { \"eth7\" }",
		"delete element inet polder links { \"cni0\" }",
		"add element inet polder prefixes4 { 10.0.3.0-10.0.5.77 }",
		"delete element inet polder prefixes4 { 10.0.0.0/24 }; add element inet polder prefixes4 { 10.0.0.0/25 }",
		"delete element inet polder prefixes6 { ::/0 }",
		"delete element inet polder dispatch4 { 10.244.1.6 : drop }; add element inet polder dispatch4 { 10.244.1.6 : accept }",
		"delete element inet polder dispatch4 { 10.244.1.5 : jump work }; add element inet polder dispatch4 { 10.244.1.5 : goto work }",
		"add element inet polder ranges4 { 10.0.9.0/24 . 7-9 }",
		"delete set inet polder empty; add set inet polder empty { type mark; flags timeout; }",
		"delete set inet polder empty; add set inet polder empty { type mark; size 3; }",
		"delete set inet polder empty; add set inet polder empty { type ipv4_addr; }",
		"add counter inet polder extra",
		"add quota inet polder extra { 1 mbytes }",
		"delete table inet polder",
		"add rule bridge polder pod accept",
		"add rule bridge polder pod vlan id 7 drop",
		"delete element bridge polder kinds { arp : goto pod_arp }",
		"delete table bridge polder",
	} {
		k.apply(samples()...)
		k.nft(script)
		observed, _ := k.read()
		if p := Diff(samples(), observed); p.Empty() || len(p.Changes()) == 0 {
			t.Errorf("not seen: %s", script)
		}
		k.apply(samples()...)
	}
}

// A rule edited under an unchanged comment is drift: every operand of every
// expression that we write is altered, one at a time, in the kernel.
func TestEveryOperandIsSeen(t *testing.T) {
	k := newKernel(t)
	k.apply(samples()...)
	covered := map[string]bool{}
	for _, table := range samples() {
		k.alterEveryOperand(table, covered)
	}
	for operand, done := range covered {
		if !done {
			t.Errorf("no alteration of %s was possible", operand)
		}
	}
	if observed, _ := k.read(); !Diff(samples(), observed).Empty() {
		t.Error("the tables were not put back")
	}
}

// alterEveryOperand notes the operands that could be altered.
func (k *kernel) alterEveryOperand(table Table, covered map[string]bool) {
	_, gen := k.read()
	for _, c := range table.Chains {
		for i, r := range c.Rules {
			for j, e := range r.Exprs {
				for field := range reflect.TypeOf(e).NumField() {
					operand := reflect.TypeOf(e).Name() + "." + reflect.TypeOf(e).Field(field).Name
					covered[operand] = covered[operand] || false
					for _, altered := range alterations(table, e, field) {
						m := c
						m.Rules = slices.Clone(c.Rules)
						m.Rules[i].Exprs = slices.Clone(r.Exprs)
						m.Rules[i].Exprs[j] = altered
						if operandIsRegister(e, field) {
							m.Rules[i].Exprs = moveRegisters(r.Exprs)
						}
						if k.refill(table.ID(), m, gen) != nil {
							continue // the kernel refuses such a rule
						}
						observed, now := k.read()
						gen = now
						if Diff(samples(), observed).Empty() {
							k.t.Fatalf("not seen: %s of %#v altered to %#v in %q", operand, e, altered, r)
						}
						covered[operand] = true
					}
				}
			}
		}
		if err := k.refill(table.ID(), c, gen); err != nil {
			k.t.Fatal(err)
		}
		_, gen = k.read()
	}
}

// refill writes a chain's rules anew, whatever they are.
func (k *kernel) refill(id TableID, c Chain, gen Generation) error {
	tx := transaction{{id, flushChain{c.Name}}}
	for _, r := range c.Rules {
		tx = append(tx, step{id, addRule{c.Name, r}})
	}
	m, err := encode(tx)
	if err != nil {
		return err
	}
	m.guard(gen)
	return k.w.send(m)
}

// alterations are copies of an expression with another value in one field.
func alterations(_ Table, e Expr, field int) []Expr {
	var list []Expr
	alter := func(value any) {
		v := reflect.New(reflect.TypeOf(e)).Elem()
		v.Set(reflect.ValueOf(e))
		f := v.Field(field)
		if f.Set(reflect.ValueOf(value).Convert(f.Type())); v.Interface() != e {
			list = append(list, v.Interface().(Expr))
		}
	}
	switch v := reflect.ValueOf(e).Field(field); v.Kind() {
	case reflect.Bool:
		alter(!v.Bool())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		for n := range uint64(4) {
			alter(n)
		}
		alter(v.Uint() + 1)
		alter(v.Uint() - 1)
		alter(v.Uint() ^ 0x10)
	case reflect.Int32:
		for _, n := range []VerdictKind{VerdictAccept, VerdictDrop, VerdictReturn, VerdictJump, VerdictGoto} {
			alter(n)
		}
	case reflect.String:
		if _, data := v.Interface().(Data); data {
			for _, i := range []int{0, v.Len() / 2, v.Len() - 1} {
				b := []byte(v.String())
				b[i] ^= 1
				alter(string(b))
			}
			alter(v.String() + "\x00")
			break
		}
		if v, ok := e.(Verdict); ok && v.Chain == "" {
			break
		}
		for _, name := range []string{"spare", "misses", "prefixes6", "prefixes4", "dispatch4", "dispatch6", "macs", "links"} {
			alter(name)
		}
	default:
		panic(fmt.Sprintf("operand of kind %s", v.Kind()))
	}
	return list
}

func operandIsRegister(e Expr, field int) bool {
	return reflect.TypeOf(e).Field(field).Type == reflect.TypeFor[Register]()
}

// moveRegisters is the same rule with other registers: the kernel refuses to
// read one that was not written.
func moveRegisters(exprs []Expr) []Expr {
	moved := slices.Clone(exprs)
	for i, e := range moved {
		v := reflect.New(reflect.TypeOf(e)).Elem()
		v.Set(reflect.ValueOf(e))
		for field := range v.NumField() {
			if operandIsRegister(e, field) {
				v.Field(field).SetUint(v.Field(field).Uint() + 4)
			}
		}
		moved[i] = v.Interface().(Expr)
	}
	return moved
}

package selector

import "strings"

// write appends the canonical text, which has only the brackets that the
// meaning needs.
func (n *node) write(b *strings.Builder) {
	switch n.op {
	case opAnd, opOr:
		n.writeOperands(b)
		return
	case opIn:
		n.writeIn(b)
		return
	}
	if n.negated {
		b.WriteByte('!')
	}
	switch n.op {
	case opAll:
		b.WriteString("all()")
	case opHas:
		b.WriteString("has(" + n.key + ")")
	default:
		b.WriteString(n.key + partNames[n.op])
		writeString(b, n.values[0])
	}
}

var partNames = map[op]string{
	opContains:   " contains ",
	opStartsWith: " starts with ",
	opEndsWith:   " ends with ",
}

func (n *node) writeOperands(b *strings.Builder) {
	between := " && "
	if n.op == opOr {
		between = " || "
	}
	for i := range n.operands {
		if i > 0 {
			b.WriteString(between)
		}
		o := &n.operands[i]
		if n.op == opAnd && o.op == opOr {
			b.WriteByte('(')
			o.write(b)
			b.WriteByte(')')
		} else {
			o.write(b)
		}
	}
}

func (n *node) writeIn(b *strings.Builder) {
	b.WriteString(n.key)
	switch {
	case len(n.values) == 1 && n.negated:
		b.WriteString(" != ")
	case len(n.values) == 1:
		b.WriteString(" == ")
	case n.negated:
		b.WriteString(" not in ")
	default:
		b.WriteString(" in ")
	}
	if len(n.values) == 1 {
		writeString(b, n.values[0])
		return
	}
	for i, v := range n.values {
		b.WriteString([]string{"{", ", "}[min(i, 1)])
		writeString(b, v)
	}
	b.WriteByte('}')
}

// writeString quotes a value. The language has no escapes: a value that holds
// one kind of quotes is put into the other.
func writeString(b *strings.Builder, value string) {
	quote := byte('"')
	if strings.IndexByte(value, quote) >= 0 {
		quote = '\''
	}
	b.WriteByte(quote)
	b.WriteString(value)
	b.WriteByte(quote)
}

package nft

import (
	"fmt"
	"strconv"
	"strings"
)

// String is the table in nft(8) syntax, as `nft -s list table` prints it: what
// `nft -f` makes of it is the same table.
func (t Table) String() string {
	t = t.canonical()
	var blocks []string
	for _, c := range t.Counters {
		blocks = append(blocks, "\tcounter "+c+" {\n\t}\n")
	}
	for _, o := range t.Objects {
		blocks = append(blocks, "\t# "+o.String()+"\n")
	}
	for _, s := range t.Sets {
		blocks = append(blocks, s.String())
	}
	for _, c := range t.Chains {
		blocks = append(blocks, c.String())
	}
	head := "table " + t.ID().String() + " {\n"
	if t.Dormant {
		head += "\tflags dormant\n\n"
	}
	return head + strings.Join(blocks, "\n") + "}\n"
}

// String is "quota q": nft(8)'s word for the type, and the name.
func (o Object) String() string {
	return formatName(objectNames, uint64(o.Type), "object type %d") + " " + o.Name
}

var objectNames = map[uint64]string{
	objectCounter: "counter", 2: "quota", 3: "ct helper", 4: "limit", 6: "tunnel",
	7: "ct timeout", 8: "secmark", 9: "ct expectation", 10: "synproxy",
}

// String is the set or map in nft(8) syntax.
func (s Set) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s", s.kind(), s.Name, s.keyText())
	if s.Verdicts {
		b.WriteString(" : verdict")
	}
	b.WriteByte('\n')
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if s.Other != "" {
		b.WriteString("\t\t# " + s.Other + "\n")
	}
	if len(s.Elements) > 0 {
		b.WriteString("\t\telements = { ")
		for i, e := range s.Elements {
			if i > 0 {
				b.WriteString(",\n\t\t\t     ")
			}
			b.WriteString(s.element(e))
		}
		b.WriteString(" }\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

// kind is nft(8)'s word.
func (s Set) kind() string {
	if s.Verdicts {
		return "map"
	}
	return "set"
}

func (s Set) keyText() string {
	names := make([]string, len(s.Key))
	for i, t := range s.Key {
		names[i] = string(t)
	}
	return strings.Join(names, " . ")
}

// element is an element in nft(8) syntax.
func (s Set) element(e Element) string {
	text := s.fields(e.Key, e.last())
	if s.Verdicts {
		text += " : " + e.Verdict.String()
	}
	if e.Other != "" {
		text += " # " + e.Other
	}
	return text
}

// fields prints the fields of a key. Key data of another length than the
// set's type says come only from a set that is none of ours: they are printed
// raw.
func (s Set) fields(first, last Data) string {
	if len(s.Key) == 1 {
		return s.Key[0].formatRange(first, last)
	}
	if len(first) != keyLength(s.Key) || len(last) != len(first) {
		return Type("").formatRange(first, last)
	}
	texts := make([]string, len(s.Key))
	for i, t := range s.Key {
		n := typeInfos[t].length
		texts[i] = t.formatRange(first[:n], last[:n])
		first, last = first[padded(n):], last[padded(n):]
	}
	return strings.Join(texts, " . ")
}

// String is the chain in nft(8) syntax.
func (c Chain) String() string {
	var b strings.Builder
	b.WriteString("\tchain " + c.Name + " {\n")
	if c.Base != nil {
		b.WriteString("\t\t" + c.Base.String() + "\n")
	}
	for _, r := range c.Rules {
		b.WriteString("\t\t" + r.String() + "\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

// String is "type filter hook input priority filter; policy accept;".
func (b Base) String() string {
	return fmt.Sprintf("type %s hook %s priority %s; policy %s;", b.Type, b.Hook, b.priority(), b.Policy)
}

// priority is the priority by nft(8)'s names for those of the IP families.
func (b Base) priority() string {
	switch {
	case b.Priority == PriorityRaw:
		return "raw"
	case b.Priority == PriorityFilter:
		return "filter"
	case b.Priority == PrioritySrcNAT && b.Hook == "postrouting":
		return "srcnat"
	}
	return strconv.Itoa(int(b.Priority))
}

// String is the verdict in nft(8) syntax.
func (v Verdict) String() string {
	switch v.Kind {
	case VerdictDrop:
		return "drop"
	case VerdictAccept:
		return "accept"
	case VerdictReturn:
		return "return"
	case VerdictJump:
		return "jump " + v.Chain
	case VerdictGoto:
		return "goto " + v.Chain
	}
	return fmt.Sprintf("verdict %d", v.Kind)
}

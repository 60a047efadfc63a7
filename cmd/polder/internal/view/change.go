package view

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/poldernet/polder/internal/change"
)

// A simple block that fits in lineWidth columns is one line, and two values
// that together are wider than pairWidth stand below each other.
const (
	lineWidth = 100
	pairWidth = 72
)

// writeChange renders one change as a block:
//
//	~ link "cni0" {
//	    ~ mtu = 1450 -> 1400
//	      # (5 unchanged attributes hidden)
//	  }
func writeChange(b *bytes.Buffer, t Text, c change.Change) {
	s := signOf(c.Action)
	head := fmt.Sprintf("%s %s %q", t.paint(fmt.Sprintf("%5s", s.symbol), s.colour), c.Kind, c.Name)
	if s.verb != "" {
		head = fmt.Sprintf("%s %s %s %q", t.paint(fmt.Sprintf("%5s", s.symbol), s.colour), s.verb, c.Kind, c.Name)
	}
	reason := ""
	if c.Reason != "" {
		reason = "  " + t.faint("# "+strings.ReplaceAll(c.Reason, "_", " "))
	}
	if len(c.Attrs) == 0 && c.Unchanged == 0 {
		fmt.Fprintf(b, "%s%s\n", head, reason)
		return
	}
	if line, ok := oneLine(c); ok {
		fmt.Fprintf(b, "%s { %s }%s\n", head, line, reason)
		return
	}
	fmt.Fprintf(b, "%s {%s\n", head, reason)
	writeAttributes(b, t, c)
	b.WriteString("      }\n")
}

// oneLine is the inside of a block that needs no lines of its own: that of an
// object that is all new or all gone, or that has but one attribute.
func oneLine(c change.Change) (string, bool) {
	pairs := make([]string, len(c.Attrs))
	for i, a := range c.Attrs {
		pairs[i] = a.Name + " = " + a.Before + a.After // one of them is empty
	}
	switch {
	case c.Action == change.Create || c.Action == change.Delete:
	case c.Action == change.Update && len(c.Attrs) == 1 && c.Unchanged == 0:
		pairs[0] = fmt.Sprintf("%s = %s -> %s", c.Attrs[0].Name, orNone(c.Attrs[0].Before), orNone(c.Attrs[0].After))
	default:
		return "", false
	}
	line := strings.Join(pairs, ", ")
	return line, len(line)+len(c.Kind)+len(c.Name)+14 <= lineWidth && !strings.Contains(line, "\n")
}

func writeAttributes(b *bytes.Buffer, t Text, c change.Change) {
	width := 0
	for _, a := range c.Attrs {
		width = max(width, len(a.Name))
	}
	put := func(action change.Action, name, value, note string) {
		s := signOf(action)
		fmt.Fprintf(b, "        %s %-*s = %s%s\n", t.paint(s.symbol, s.colour), width, name, value, note)
	}
	for _, a := range c.Attrs {
		note := ""
		if a.ForcesReplace {
			note = "  " + t.paint("# forces replacement", signOf(change.Replace).colour)
		}
		switch {
		case a.Before == "":
			put(change.Create, a.Name, a.After, note)
		case a.After == "":
			put(change.Delete, a.Name, a.Before, note)
		case len(a.Before)+len(a.After) > pairWidth:
			put(change.Delete, a.Name, a.Before, "")
			put(change.Create, a.Name, a.After, note)
		default:
			put(change.Update, a.Name, a.Before+" -> "+a.After, note)
		}
	}
	if c.Unchanged > 0 {
		fmt.Fprintf(b, "          %s\n", t.faint(fmt.Sprintf("# (%s hidden)", count(c.Unchanged, "unchanged attribute"))))
	}
}

// brief is a change in one line, for lists where the whole would be too much.
func brief(t Text, c change.Change) string {
	s := signOf(c.Action)
	line := fmt.Sprintf("%s %s %q", t.paint(s.mark(), s.colour), c.Kind, c.Name)
	if c.Action != change.Update && c.Action != change.Replace {
		return line
	}
	var differs []string
	for _, a := range c.Attrs {
		before, after := a.Before, a.After
		if len(before)+len(after) > pairWidth {
			differs = append(differs, a.Name)
			continue
		}
		differs = append(differs, fmt.Sprintf("%s %s -> %s", a.Name, orNone(before), orNone(after)))
	}
	if len(differs) == 0 {
		return line
	}
	return line + ": " + strings.Join(differs, ", ")
}

func orNone(value string) string {
	if value == "" {
		return "(none)"
	}
	return value
}

package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Matrix is who reaches whom, as `policy matrix --json` prints it.
type Matrix struct {
	FormatVersion string  `json:"format_version"`
	Type          string  `json:"type"` // "policy_matrix"
	Groups        []Group `json:"groups"`
	// Cells has no pair in which there is nothing to tell.
	Cells []Cell `json:"cells"`

	table [][]string // by index of the group that begins, then of the other
}

// Group is ends that all policies treat alike.
type Group struct {
	Name    string       `json:"name"`
	Kind    spec.EndKind `json:"kind"`
	Members []string     `json:"members"`
}

// Cell is what passes from a member of one group to one of another.
type Cell struct {
	From     string `json:"from"` // names of groups
	To       string `json:"to"`
	Services string `json:"services"` // as the table has it
	IPv4     *Reach `json:"ipv4,omitempty"`
	IPv6     *Reach `json:"ipv6,omitempty"`
}

// Reach is what passes in a family: each port and protocol is in one of both.
type Reach struct {
	Allowed []string `json:"allowed"`
	Denied  []string `json:"denied"`
}

// NewMatrix is the model of a matrix.
func NewMatrix(x *policy.Matrix) Matrix {
	m := Matrix{FormatVersion: FormatVersion, Type: "policy_matrix", Groups: []Group{}, Cells: []Cell{}}
	for _, g := range x.Groups {
		name := g.Members[0]
		if g.Kind == spec.EndNode {
			name = spec.End{Kind: spec.EndNode, Name: name}.String()
		}
		if n := len(g.Members); n > 1 {
			name += fmt.Sprintf(" +%d", n-1)
		}
		m.Groups = append(m.Groups, Group{Name: name, Kind: g.Kind, Members: g.Members})
	}
	for i, row := range x.Cells {
		for j, c := range row {
			if c.Empty {
				continue
			}
			m.Cells = append(m.Cells, Cell{
				From: m.Groups[i].Name, To: m.Groups[j].Name, Services: c.String(),
				IPv4: newReach(c.Reach.IPv4), IPv6: newReach(c.Reach.IPv6),
			})
		}
	}
	m.tabulate()
	return m
}

// UnmarshalJSON reads a matrix as it is printed.
func (m *Matrix) UnmarshalJSON(b []byte) error {
	type printed Matrix
	err := json.Unmarshal(b, (*printed)(m))
	m.tabulate()
	return err
}

// tabulate makes the table of the cells, which are in its order.
func (m *Matrix) tabulate() {
	m.table = nil
	rest := m.Cells
	for _, from := range m.Groups {
		texts := make([]string, len(m.Groups))
		for j, to := range m.Groups {
			if len(rest) > 0 && rest[0].From == from.Name && rest[0].To == to.Name {
				texts[j], rest = rest[0].Services, rest[1:]
			}
		}
		m.table = append(m.table, texts)
	}
}

func newReach(r *policy.Reach) *Reach {
	if r == nil {
		return nil
	}
	texts := func(list []policy.Span) []string {
		out := []string{}
		for _, s := range list {
			out = append(out, s.String())
		}
		return out
	}
	return &Reach{Allowed: texts(r.Allowed), Denied: texts(r.Denied)}
}

// A table may be matrixWidth columns wide; what is wider is a list. Texts wider
// than cellWidth stand below a table.
const (
	matrixWidth = 120
	cellWidth   = 24
)

// WriteText renders the matrix as a table, or as a list where that is too wide.
func (m Matrix) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	rows, notes := m.rows()
	if tableWidth(rows) > matrixWidth {
		rows, notes = m.list(), []string{"What is not listed is denied."}
	}
	writeTable(&b, rows)
	for _, g := range m.Groups {
		if len(g.Members) > 1 {
			notes = append(notes, fmt.Sprintf("%s: %s", g.Name, g.members(t)))
		}
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	for _, note := range notes {
		fmt.Fprintf(&b, "  %s\n", note)
	}
	fmt.Fprintf(&b, "\n%s\n", t.faint("Beside this, a node always reaches the endpoints on it, and each end itself."))
	return flush(w, &b)
}

// rows are those of the table, and what stands below it.
func (m Matrix) rows() (rows [][]string, notes []string) {
	rows = [][]string{{"FROM \\ TO"}}
	numbers := make(map[string]int)
	for i, g := range m.Groups {
		rows[0] = append(rows[0], g.Name)
		row := []string{g.Name}
		for _, text := range m.table[i] {
			if len(text) > cellWidth {
				if numbers[text] == 0 {
					numbers[text] = len(notes) + 1
					notes = append(notes, fmt.Sprintf("[%d] %s", numbers[text], text))
				}
				text = fmt.Sprintf("[%d]", numbers[text])
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	return rows, notes
}

// members lists a group, the first few of many.
func (g Group) members(t Text) string {
	const most = 8
	if len(g.Members) <= most || t.Verbose {
		return strings.Join(g.Members, ", ")
	}
	return fmt.Sprintf("%s and %d more (--verbose shows them)", strings.Join(g.Members[:most], ", "), len(g.Members)-most)
}

// list has a row for each pair between which something passes.
func (m Matrix) list() [][]string {
	rows := [][]string{{"FROM", "TO", "ALLOWED"}}
	for _, c := range m.Cells {
		if c.Services != "-" {
			rows = append(rows, []string{c.From, c.To, c.Services})
		}
	}
	return rows
}

// tableWidth is how wide writeTable makes the widest line.
func tableWidth(rows [][]string) int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	sum := 0
	for _, w := range widths {
		sum += w + 2
	}
	return sum
}

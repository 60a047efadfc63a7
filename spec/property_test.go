package spec_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// TestPropertySyntaxes: the native and the JSON form of a spec mean the same.
func TestPropertySyntaxes(t *testing.T) {
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		g := genSpec(t, false)
		native := w.load(t, map[string]string{"a.hcl": g.native("")})
		inJSON := w.load(t, map[string]string{"a.hcl.json": jsonText(t, g.item)})
		if native != inJSON {
			t.Fatalf("in HCL\n%s\nin JSON\n%s", native, inJSON)
		}
	})
}

// TestPropertyOrder: neither the order of blocks nor their spread over files
// means anything.
func TestPropertyOrder(t *testing.T) {
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		g := genSpec(t, false)
		want := w.load(t, map[string]string{"a.hcl": g.native("")})
		files := map[string]string{"a.hcl": item{attrs: g.attrs}.native("")}
		for _, it := range rapid.Permutation(g.items).Draw(t, "order") {
			name := rapid.SampledFrom([]string{"a.hcl", "b.hcl", "0.hcl"}).Draw(t, "file")
			files[name] += item{items: []item{it}}.native("")
		}
		if got := w.load(t, files); got != want {
			t.Fatalf("in order\n%s\nout of it\n%s", want, got)
		}
	})
}

// TestPropertyFormat: the canonical layout means what was written, and is its
// own.
func TestPropertyFormat(t *testing.T) {
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		g := genSpec(t, false)
		var messy strings.Builder
		for line := range strings.Lines(g.native("")) {
			indent := rapid.SampledFrom([]string{"", " ", "\t", "      ", "\n", "# a comment\n"}).Draw(t, "indent")
			equals := rapid.SampledFrom([]string{"=", " =", "=    "}).Draw(t, "equals")
			messy.WriteString(indent + strings.Replace(strings.TrimLeft(line, " "), " = ", equals, 1))
		}
		formatted, _, diags := spec.Format("a.hcl", []byte(messy.String()))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		before := w.load(t, map[string]string{"a.hcl": messy.String()})
		after := w.load(t, map[string]string{"a.hcl": string(formatted)})
		if before != after {
			t.Fatalf("%s\nbecame\n%s", messy.String(), formatted)
		}
		again, _, diags := spec.Format("a.hcl", formatted)
		if diags.HasErrors() || !bytes.Equal(again, formatted) {
			t.Fatalf("%s\nbecame, formatted once more,\n%s\n%v", formatted, again, diags)
		}
		if strings.Count(string(formatted), "# a comment") != strings.Count(messy.String(), "# a comment") {
			t.Fatalf("comments were lost:\n%s", formatted)
		}
	})
}

// TestPropertyAssign: an assignment gives each node that lacks a subnet the
// lowest one that is free, in the order of the file, and changes nothing else.
func TestPropertyAssign(t *testing.T) {
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		g := genSpec(t, true)
		text := g.native("")
		w.put(t, map[string]string{"a.hcl": text})
		edit, diags := spec.Assign(string(w), spec.Inputs{})

		want, possible := g.allocation()
		if !possible {
			if !diags.HasErrors() || len(edit.Files()) > 0 || len(edit.Assignments) > 0 {
				t.Fatalf("there are not enough subnets, and %v were assigned", edit.Assignments)
			}
			return
		}
		if diags.HasErrors() {
			t.Fatalf("%s\n%s", text, rendered(t, edit.Config, diags))
		}
		if err := edit.Write(); err != nil {
			t.Fatal(err)
		}
		edited := w.read(t, "a.hcl")
		if g.lacked == 0 && edited != text {
			t.Fatalf("nothing was lacking, and\n%s\nbecame\n%s", text, edited)
		}
		config, diags := spec.Load(string(w), spec.Inputs{})
		if diags.HasErrors() {
			t.Fatalf("%s", rendered(t, config, diags))
		}
		for _, n := range config.Spec.Nodes {
			if got := fmt.Sprint(n.Subnets); got != fmt.Sprint(want[n.Name]) {
				t.Fatalf("%s\nnode %s has %s, want %v", edited, n.Name, got, want[n.Name])
			}
		}
		if edit, diags := spec.Assign(string(w), spec.Inputs{}); diags.HasErrors() || len(edit.Files()) > 0 {
			t.Fatalf("a second assignment changes %v (%v)", edit.Files(), diags)
		}
	})
}

// allocation is what nodes should have after an assignment, by the plainest
// way to find it.
func (g generated) allocation() (map[string][]netip.Prefix, bool) {
	out := make(map[string][]netip.Prefix)
	for _, f := range spec.Families {
		p, ok := g.pods[f]
		if !ok {
			continue
		}
		taken := make(map[int]bool)
		for _, subnets := range g.given {
			if i, ok := subnets[f]; ok {
				taken[i] = true
			}
		}
		for i := range len(g.given) {
			name := fmt.Sprintf("n%d", i)
			number, ok := g.given[name][f]
			if !ok {
				for number = p.min; taken[number]; number++ {
				}
				if number > p.max {
					return nil, false
				}
				taken[number] = true
			}
			out[name] = append(out[name], p.subnet(number))
		}
	}
	return out, true
}

// TestPropertyAdd: a node that is added is there with its addresses, and all
// else is as before.
func TestPropertyAdd(t *testing.T) {
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		g := genSpec(t, false)
		before := w.load(t, map[string]string{"a.hcl": g.native("")})
		edit, diags := spec.AddNode(string(w), spec.Inputs{}, "new", "192.0.2.200/24", "2001:db8::200")
		if diags.HasErrors() {
			if strings.Contains(diags.Error(), "have a node") {
				return
			}
			t.Fatalf("%s", rendered(t, edit.Config, diags))
		}
		if err := edit.Write(); err != nil {
			t.Fatal(err)
		}
		config, diags := spec.Load(string(w), spec.Inputs{})
		if diags.HasErrors() {
			t.Fatalf("%s", rendered(t, config, diags))
		}
		added := config.Spec.Node("new")
		if added == nil || len(added.Addresses) != 2 || len(added.Subnets) != len(g.pods) {
			t.Fatalf("added was %+v", added)
		}
		config.Spec.Nodes = slices.DeleteFunc(config.Spec.Nodes, func(n *spec.Node) bool { return n == added })
		if after := string(dump(t, config.Spec)); after != before {
			t.Fatalf("%s\nbecame\n%s", before, after)
		}
	})
}

// TestPropertyMistakes: of several mistakes in as many nodes, each is reported
// once, at its line, and nothing else is.
func TestPropertyMistakes(t *testing.T) {
	mistakes := []func(*item){
		func(n *item) { n.attrs["addresses"] = []string{"192.0.2.999"} },
		func(n *item) { n.attrs["addresses"] = []string{} },
		func(n *item) { n.attrs["subnets"] = []string{"10.244.1.0"} },
		func(n *item) { n.attrs["subnets"] = 7 },
		func(n *item) { n.attrs["adresses"] = n.attrs["addresses"]; delete(n.attrs, "addresses") },
		func(n *item) { n.attrs["vtep_mac"] = map[string]any{"ipv4": "01:00:00:00:00:00"} },
		func(n *item) { n.items = []item{{block: "underlay"}} },
		func(n *item) { n.attrs["for_each"] = 3 },
	}
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		g := genSpec(t, false)
		broken := make(map[string]bool)
		for i := range g.items {
			if g.items[i].block == "node" && rapid.Bool().Draw(t, "broken") {
				broken[g.items[i].label] = true
				rapid.SampledFrom(mistakes).Draw(t, "how")(&g.items[i])
			}
		}
		text := g.native("")
		w.put(t, map[string]string{"a.hcl": text})
		config, diags := spec.Load(string(w), spec.Inputs{})
		node := ""
		nodeAt := make(map[int]string)
		for i, line := range strings.Split(text, "\n") {
			if name, ok := strings.CutPrefix(line, `node "`); ok {
				node, _, _ = strings.Cut(name, `"`)
			} else if line != "" && line[0] != ' ' && line != "}" {
				node = ""
			}
			nodeAt[i+1] = node
		}
		for _, d := range diags {
			if name := nodeAt[d.Subject.Start.Line]; broken[name] {
				delete(broken, name)
				continue
			}
			t.Fatalf("%s\na mistake too many, or one twice:\n%s", text, rendered(t, config, diags))
		}
		if len(broken) > 0 {
			t.Fatalf("%s\nnothing about %v:\n%s", text, broken, rendered(t, config, diags))
		}
	})
}

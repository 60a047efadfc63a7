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

// mistakes are ways to break a block, by its kind.
var mistakes = map[string][]func(*item){
	"node": {
		func(n *item) { n.attrs["addresses"] = []string{"192.0.2.999"} },
		func(n *item) { n.attrs["addresses"] = []string{} },
		func(n *item) { n.attrs["subnets"] = []string{"10.244.1.0"} },
		func(n *item) { n.attrs["subnets"] = 7 },
		func(n *item) { n.attrs["adresses"] = n.attrs["addresses"]; delete(n.attrs, "addresses") },
		func(n *item) { n.attrs["vtep_mac"] = map[string]any{"ipv4": "01:00:00:00:00:00"} },
		func(n *item) { n.items = []item{{block: "underlay"}} },
		func(n *item) { n.attrs["for_each"] = 3 },
	},
	"endpoint": {
		func(e *item) { e.attrs["addresses"] = []string{"10.244.1"} },
		func(e *item) { e.attrs["ports"] = map[string]any{"http": "80"} },
		func(e *item) { e.attrs["for_each"] = 3 },
	},
	"namespace": {
		func(n *item) { n.attrs["labels"] = map[string]any{spec.NamespaceLabel: "other"} },
		func(n *item) { n.attrs["labels"] = 3 },
	},
	"network_set": {
		func(n *item) { n.attrs["cidrs"] = []string{"10.0.0.1/8"} },
		func(n *item) { delete(n.attrs, "cidrs") },
		func(n *item) { n.attrs["for_each"] = 3 },
	},
	"tier": {
		func(n *item) { n.attrs["default_action"] = "allow" },
		func(n *item) { n.attrs["order"] = "first" },
		func(n *item) { n.attrs["for_each"] = 3 },
	},
	"policy": {
		func(p *item) { p.attrs["types"] = []string{} },
		func(p *item) { p.attrs["order"] = "last" },
		func(p *item) { p.attrs["selctor"] = "all()" },
		func(p *item) { p.attrs["for_each"] = 3 },
		func(p *item) { p.items = []item{{block: "ingress"}} },
		func(p *item) { p.items = []item{ruleWith("action", "accept")} },
		func(p *item) { p.items = []item{ruleWith("ports", []string{"80"})} },
		func(p *item) { p.items = []item{ruleWith("ports", []string{})} },
		func(p *item) { p.items = []item{ruleWith("protocol", 0)} },
		func(p *item) { p.items = []item{ruleWith("icmp", []string{"echo-reply"})} },
		func(p *item) { p.items = []item{ruleWith("", "", item{block: "from"})} },
		func(p *item) { p.items = []item{ruleWith("", "", item{block: "to"})} },
		func(p *item) {
			p.items = []item{ruleWith("", "", item{block: "from", attrs: map[string]any{"cidr": "10.0.0.0/8", "any": true}})}
		},
	},
	"host_endpoint": {
		func(h *item) { h.attrs["interface"] = "lo" },
		func(h *item) { h.attrs["failsafe_outbound"] = []string{"ssh"} },
		func(h *item) { h.attrs["for_each"] = 3 },
	},
	"check": {
		func(c *item) { c.attrs["from"] = "somewhere" },
		func(c *item) { c.attrs["port"] = "80" },
		func(c *item) { c.attrs["expect"] = "pass" },
	},
	"enforcement": {
		func(e *item) { e.attrs["log_rate"] = 0 },
		func(e *item) { e.attrs["established"] = "check" },
	},
}

// ruleWith is a good rule but for one attribute, and its peers.
func ruleWith(name string, value any, peers ...item) item {
	rule := item{block: "ingress", attrs: map[string]any{"action": "allow"}, items: peers}
	if name != "" {
		rule.attrs[name] = value
	}
	return rule
}

// TestPropertyMistakes: of several mistakes in as many blocks, each is reported
// once, at a line of its block, and nothing else is.
func TestPropertyMistakes(t *testing.T) {
	w := newWorkbench(t)
	rapid.Check(t, func(t *rapid.T) {
		g := genSpec(t, false)
		var text strings.Builder
		text.WriteString(item{attrs: g.attrs}.native(""))
		blockAt := make(map[int]int) // the item by line
		broken := make(map[int]bool)
		for i := range g.items {
			if ways := mistakes[g.items[i].block]; ways != nil && rapid.Bool().Draw(t, "broken") {
				broken[i] = true
				rapid.SampledFrom(ways).Draw(t, "how")(&g.items[i])
			}
			first := strings.Count(text.String(), "\n") + 1
			text.WriteString(item{items: g.items[i : i+1]}.native(""))
			for line := first; line <= strings.Count(text.String(), "\n"); line++ {
				blockAt[line] = i
			}
		}
		w.put(t, map[string]string{"a.hcl": text.String()})
		config, diags := spec.Load(string(w), spec.Inputs{})
		for _, d := range diags {
			if i, ok := blockAt[d.Subject.Start.Line]; ok && broken[i] {
				delete(broken, i)
				continue
			}
			t.Fatalf("%s\na mistake too many, or one twice:\n%s", text.String(), rendered(t, config, diags))
		}
		for i := range broken {
			t.Fatalf("%s\nnothing about %s %s:\n%s", text.String(), g.items[i].block, g.items[i].label, rendered(t, config, diags))
		}
	})
}

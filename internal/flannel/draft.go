package flannel

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/poldernet/polder/spec"
)

// draft is a spec that is to be written, with comments for the people who will
// go on with it.
type draft struct {
	header  notes
	cluster string
	// kubernetes is nil where nodes are in the file.
	kubernetes notes
	network    notes // above the network's attributes
	compat     spec.Compat
	cidrs      []string
	lens       spec.PerFamily[int]
	min, max   []string
	mtu        int
	// bridge is nil where nothing is known of it.
	bridge     *spec.Bridge
	bridgeWhy  notes
	backend    spec.Backend
	backendWhy notes
	masquerade *spec.Masquerade
	natWhy     notes
	underlay   string // the attribute and its value
	nodes      []nodeDraft
	footer     notes
}

// nodeDraft is a node block.
type nodeDraft struct {
	why       notes
	name      string
	addresses []string
	subnets   []string
	macs      spec.PerFamily[string]
}

// notes are comments, a paragraph each.
type notes []string

func (n *notes) add(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

// drop notes what the spec does not have.
func (n *notes) drop(format string, args ...any) { n.add("dropped: "+format, args...) }

// hcl is the spec in the one layout.
func (d *draft) hcl() []byte {
	w := writer{}
	for i, note := range d.header {
		if i > 0 {
			w.line("#")
		}
		w.comment(note)
	}
	w.line("")
	w.line("cluster = %s", quoteHCL(d.cluster))
	w.line("")
	if d.kubernetes != nil {
		w.notes(d.kubernetes)
		w.line("kubernetes {}")
		w.line("")
	}
	w.line("network {")
	w.notes(d.network)
	w.line("pod_cidrs = %s", listHCL(d.cidrs))
	if d.compat != "" {
		w.line("compat = %s", quoteHCL(string(d.compat)))
	}
	w.line("%s", familiesHCL("subnet_len", d.lens, strconv.Itoa))
	w.bounds("subnet_min", d.min)
	w.bounds("subnet_max", d.max)
	if d.mtu != 0 {
		w.line("mtu = %d", d.mtu)
	}
	if d.bridge != nil {
		w.line("")
		w.notes(d.bridgeWhy)
		w.line("bridge {\nname = %s\nhairpin_mode = %t\n}", quoteHCL(d.bridge.Name), d.bridge.HairpinMode)
	}
	w.line("")
	w.notes(d.backendWhy)
	w.backend(d.backend)
	if len(d.natWhy) > 0 || d.masquerade != nil {
		w.line("")
		w.notes(d.natWhy)
	}
	switch {
	case d.masquerade == nil:
	case d.masquerade.RandomFully:
		w.line("masquerade {}")
	default:
		w.line("masquerade {\nrandom_fully = false\n}")
	}
	if d.underlay != "" {
		w.line("")
		w.line("underlay {\n%s\n}", d.underlay)
	}
	w.line("}")
	for _, n := range d.nodes {
		w.line("")
		w.node(n)
	}
	for _, note := range d.footer {
		w.line("")
		w.comment(note)
	}
	return hclwrite.Format([]byte(w.String()))
}

// finish writes the spec, if it is a valid one. What no spec can say and was not
// found before is said of the document as a whole.
func (d *document) finish(out *draft) ([]byte, hcl.Diagnostics) {
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	text := out.hcl()
	_, diags := spec.LoadText("imported.hcl", text)
	for _, diag := range diags {
		if diag.Severity == hcl.DiagError {
			d.fail(d.between(0, 0), diag.Summary, "No spec can say what this comes to. %s", diag.Detail)
		}
	}
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	return text, d.diags
}

// writer writes lines; hclwrite indents them.
type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if format != "" && text == "" {
		return
	}
	w.WriteString(text + "\n")
}

// width is that of comments.
const width = 76

// comment writes a paragraph, or lines that begin with a space as they are.
func (w *writer) comment(text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, " ") {
			w.WriteString("#" + line + "\n")
			continue
		}
		out := "#"
		for _, word := range strings.Fields(line) {
			if len(out)+1+len(word) > width && out != "#" {
				w.WriteString(out + "\n")
				out = "#"
			}
			out += " " + word
		}
		w.WriteString(out + "\n")
	}
}

func (w *writer) notes(list notes) {
	for _, note := range list {
		w.comment(note)
	}
}

// bounds writes subnet_min or subnet_max.
func (w *writer) bounds(name string, list []string) {
	switch len(list) {
	case 0:
	case 1:
		w.line("%s = %s", name, quoteHCL(list[0]))
	default:
		w.line("%s = %s", name, listHCL(list))
	}
}

func (w *writer) backend(b spec.Backend) {
	if b.Type == spec.HostGW {
		w.line("backend %q {}", b.Type)
		return
	}
	w.line("backend %q {", b.Type)
	w.line("vni = %d\nport = %d", b.VNI, b.Port)
	if b.DirectRouting {
		w.line("direct_routing = true")
	}
	w.line("%s", familiesHCL("device", b.Device, quoteHCL))
	w.line("}")
}

func (w *writer) node(n nodeDraft) {
	w.notes(n.why)
	w.line("node %s {", quoteHCL(n.name))
	w.line("addresses = %s", listHCL(n.addresses))
	w.line("subnets = %s", listHCL(n.subnets))
	w.line("%s", familiesHCL("vtep_mac", n.macs, quoteHCL))
	w.line("}")
}

// familiesHCL is an attribute with a value for each family that has one.
func familiesHCL[T comparable](name string, of spec.PerFamily[T], text func(T) string) string {
	var zero T
	var list []string
	for _, f := range spec.Families {
		if v := of.Get(f); v != zero {
			list = append(list, fmt.Sprintf("%s = %s", f, text(v)))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprintf("%s = { %s }", name, strings.Join(list, ", "))
}

func listHCL(list []string) string {
	var quoted []string
	for _, s := range list {
		quoted = append(quoted, quoteHCL(s))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func quoteHCL(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

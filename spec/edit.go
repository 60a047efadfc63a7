package spec

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// Edit is a change of the spec's files that is not written yet.
type Edit struct {
	// Config is the spec as edited, or as far as it got, to print diagnostics
	// with.
	Config *Config
	// Assignments are the subnets that nodes get.
	Assignments []Assignment

	changed []changedFile
}

// Assignment is what one node gets.
type Assignment struct {
	Node    string
	Subnets []netip.Prefix // one per family that the node had none of, IPv4 first
}

type changedFile struct {
	name          string
	before, after []byte
}

// Assign gives the next free subnets to the nodes of that name, or to all,
// where they have none: between subnet_min and subnet_max, lowest first, in
// the order of the names, or of the files. A subnet that is there stays. The
// rest of the files stays as it is, comments and layout included.
//
// The Edit is never nil. With errors it cannot be written.
func Assign(path string, in Inputs, names ...string) (*Edit, hcl.Diagnostics) {
	e, diags := startEdit(path, in)
	if diags.HasErrors() {
		return e.Edit, diags
	}
	nodes := e.decl.nodes
	if len(names) > 0 {
		nodes = nil
		for _, name := range names {
			i := slices.IndexFunc(e.decl.nodes, func(n *nodeDecl) bool { return n.Name == name })
			if i < 0 {
				diags = append(diags, e.Config.noSuchNode(name, nodeNames(e.decl.nodes))...)
				continue
			}
			if n := e.decl.nodes[i]; !slices.Contains(nodes, n) {
				nodes = append(nodes, n)
			}
		}
	}
	for _, n := range nodes {
		diags = append(diags, e.assign(n)...)
	}
	return e.finish(diags)
}

// AddNode adds a node block with the given addresses, as in the attribute
// "addresses", and with the next free subnet of each pod family. It goes
// behind the last node block there is, or to the end of the last file.
//
// The Edit is never nil. With errors it cannot be written.
func AddNode(path string, in Inputs, name string, addresses ...string) (*Edit, hcl.Diagnostics) {
	e, diags := startEdit(path, in)
	if diags.HasErrors() {
		return e.Edit, diags
	}
	if err := checkName(name); err != nil {
		diags = append(diags, failed("Unsuitable name", fmt.Errorf("%q is no name for a node: %w", name, err))...)
	}
	if i := slices.IndexFunc(e.decl.nodes, func(n *nodeDecl) bool { return n.Name == name }); i >= 0 {
		diags = append(diags, e.decl.nodes[i].problem("Duplicate node", "The spec has a node %q already.", name))
	}
	for _, a := range addresses {
		if _, err := parseNodeAddress(a); err != nil {
			diags = append(diags, failed("Unsuitable address", fmt.Errorf("%q cannot be a node's address: %w", a, err))...)
		}
	}
	added := Assignment{Node: name}
	for _, a := range e.free {
		p, err := a.take()
		if err != nil {
			diags = append(diags, failed("No free subnet", err)...)
			continue
		}
		added.Subnets = append(added.Subnets, p)
	}
	if !diags.HasErrors() {
		diags = append(diags, e.addNode(added, addresses)...)
	}
	e.Assignments = append(e.Assignments, added)
	return e.finish(diags)
}

// editor makes an Edit.
type editor struct {
	*Edit
	decl       *declarations
	free       []*allocator // by pod family, IPv4 first
	insertions map[string][]insertion
	lineEnds   map[string][]int // as lexed, of the files in which lineEnd has looked
}

// insertion is a text to put in the place of another, mostly an empty one.
type insertion struct {
	from, to int
	text     string
}

// startEdit reads a spec. Mistakes that do not touch which subnets are free
// are left to the end: the edit may be what mends them.
func startEdit(path string, in Inputs) (*editor, hcl.Diagnostics) {
	r := newReader()
	e := &editor{
		Edit:       &Edit{Config: &Config{path: path, reader: r}},
		insertions: make(map[string][]insertion),
		lineEnds:   make(map[string][]int),
	}
	sources, diags := r.readSources(path)
	if diags.HasErrors() {
		return e, diags
	}
	e.Config, diags = build(path, in, sources, r, subnetsToCome)
	e.decl = e.Config.decl
	if e.decl == nil || e.decl.hidden[nodeBlock] || e.decl.network != nil && !e.decl.network.ranges {
		return e, diags
	}
	for _, n := range e.decl.nodes {
		if !n.subnetsKnown {
			return e, diags
		}
	}
	if e.decl.network != nil {
		for _, r := range e.decl.network.Pods {
			e.free = append(e.free, newAllocator(r, e.decl.nodes))
		}
	}
	return e, nil
}

// assign gives a node the subnets that it lacks.
func (e *editor) assign(n *nodeDecl) hcl.Diagnostics {
	got := Assignment{Node: n.Name}
	var diags hcl.Diagnostics
	for _, a := range e.free {
		if _, ok := n.Subnet(a.Family()); ok {
			continue
		}
		p, err := a.take()
		if err != nil {
			return append(diags, n.problem("No free subnet", "For node %s: %s.", n.Name, err))
		}
		got.Subnets = append(got.Subnets, p)
	}
	if len(got.Subnets) == 0 {
		return nil
	}
	byHand := func(why string) hcl.Diagnostics {
		return append(diags, n.problem("Subnet to be written by hand", "%s The next free subnets for node %s: %s", why, n.Name, quoteList(got.Subnets)))
	}
	if n.each {
		return byHand("Its block makes several nodes by for_each, so that the subnets stand where for_each has its values from.")
	}
	block := e.Config.nativeBlock(n.block)
	if block == nil {
		return byHand(fmt.Sprintf("%s is JSON, and polder writes into HCL files only.", n.block.DefRange.Filename))
	}
	attr := block.Body.Attributes["subnets"]
	if attr == nil {
		e.addAttribute(block, "subnets = ["+quoteList(got.Subnets)+"]")
	} else {
		tuple, ok := attr.Expr.(*hclsyntax.TupleConsExpr)
		if !ok {
			return byHand("Its subnets are not a list that is written out.")
		}
		at, text := tuple.OpenRange.End.Byte, quoteList(got.Subnets)
		if len(tuple.Exprs) > 0 {
			at, text = tuple.Exprs[len(tuple.Exprs)-1].Range().End.Byte, ", "+text
		}
		e.insert(attr.SrcRange.Filename, insertion{at, at, text})
	}
	e.Assignments = append(e.Assignments, got)
	return nil
}

// addAttribute puts an attribute behind the block's addresses.
func (e *editor) addAttribute(block *hclsyntax.Block, text string) {
	file := block.TypeRange.Filename
	src := e.Config.files[file].Bytes
	first, last := block.OpenBraceRange, block.CloseBraceRange
	if first.Start.Line == last.Start.Line { // a block on one line holds one attribute
		inner := strings.TrimSpace(string(src[first.End.Byte:last.Start.Byte]))
		if inner != "" {
			inner = "\n  " + inner
		}
		e.insert(file, insertion{first.End.Byte, last.Start.Byte, inner + "\n  " + text + "\n"})
		return
	}
	behind, indent := first.End.Byte, "  "
	if attr := block.Body.Attributes["addresses"]; attr != nil {
		behind = attr.SrcRange.End.Byte
		line := src[bytes.LastIndexByte(src[:attr.SrcRange.Start.Byte], '\n')+1 : attr.SrcRange.Start.Byte]
		indent = string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
	}
	at := e.lineEnd(file, behind)
	e.insert(file, insertion{at, at, indent + text + "\n"})
}

// lineEnd is where the line behind the one of pos begins. Comments that span
// lines do not end one. A file is lexed once: an edit of 5,000 nodes asks as
// often.
func (e *editor) lineEnd(file string, pos int) int {
	src := e.Config.files[file].Bytes
	ends, ok := e.lineEnds[file]
	if !ok {
		// Positions of the tokens are those in src: its errors were found before.
		tokens, _ := hclsyntax.LexConfig(src, file, hcl.InitialPos)
		for _, t := range tokens {
			if t.Type == hclsyntax.TokenNewline || t.Type == hclsyntax.TokenComment && bytes.HasSuffix(t.Bytes, []byte("\n")) {
				ends = append(ends, t.Range.End.Byte)
			}
		}
		e.lineEnds[file] = ends
	}
	i, _ := slices.BinarySearch(ends, pos+1)
	if i == len(ends) {
		return len(src)
	}
	return ends[i]
}

// addNode puts a node block where the others are.
func (e *editor) addNode(a Assignment, addresses []string) hcl.Diagnostics {
	file := e.Config.sources[len(e.Config.sources)-1].name
	if nodes := e.decl.nodes; len(nodes) > 0 {
		file = nodes[len(nodes)-1].block.DefRange.Filename
	}
	body, ok := e.Config.files[file].Body.(*hclsyntax.Body)
	if !ok {
		// Names and addresses are checked: they quote alike in both syntaxes.
		return hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "Node to be written by hand",
			Detail: fmt.Sprintf("%s is JSON, and polder writes into HCL files only. What to add to \"node\":\n\n  %s: {\"addresses\": [%s], \"subnets\": [%s]}",
				file, quote(a.Node), quoteList(addresses), quoteList(a.Subnets)),
		}}
	}
	src := e.Config.files[file].Bytes
	at := len(src)
	for _, block := range slices.Backward(body.Blocks) {
		if block.Type == nodeBlock.name {
			at = e.lineEnd(file, block.CloseBraceRange.End.Byte)
			break
		}
	}
	text := fmt.Sprintf("node %s {\n  addresses = [%s]\n", quote(a.Node), quoteList(addresses))
	if len(a.Subnets) > 0 {
		text += fmt.Sprintf("  subnets   = [%s]\n", quoteList(a.Subnets))
	}
	text += "}\n"
	if len(bytes.TrimSpace(src[:at])) > 0 {
		text = "\n" + text
	}
	if at > 0 && src[at-1] != '\n' {
		text = "\n" + text
	}
	e.insert(file, insertion{at, at, text})
	return nil
}

// insert remembers an insertion. Positions are those of the file as read, and
// stay right until all are applied.
func (e *editor) insert(file string, i insertion) {
	e.insertions[file] = append(e.insertions[file], i)
}

// finish makes the edited files and reads them as a spec, so that nothing is
// written that cannot be read, or says something else than was meant. With
// errors there is nothing to write.
func (e *editor) finish(diags hcl.Diagnostics) (*Edit, hcl.Diagnostics) {
	if !diags.HasErrors() {
		diags = e.splice()
	}
	if diags.HasErrors() {
		e.changed, e.Assignments = nil, nil
	}
	return e.Edit, diags
}

// splice applies all insertions and reads the result.
func (e *editor) splice() hcl.Diagnostics {
	sources := slices.Clone(e.Config.sources)
	for i, src := range sources {
		if len(e.insertions[src.name]) == 0 {
			continue
		}
		sources[i].text = splice(src.text, e.insertions[src.name])
		e.changed = append(e.changed, changedFile{src.name, src.text, sources[i].text})
	}
	var diags hcl.Diagnostics
	e.Config, diags = build(e.Config.path, e.Config.inputs, sources, e.Config.reader, subnetsToCome)
	if diags.HasErrors() {
		return diags
	}
	for _, a := range e.Assignments {
		n := e.Config.Spec.Node(a.Node)
		for _, p := range a.Subnets {
			if n == nil || !slices.Contains(n.Subnets, p) {
				return failed("Edit failed", fmt.Errorf("the subnet %s could not be written into the block of node %s; write it by hand", p, a.Node))
			}
		}
	}
	return diags
}

// splice applies insertions. A file in canonical layout stays in it.
func splice(src []byte, insertions []insertion) []byte {
	slices.SortFunc(insertions, func(a, b insertion) int { return a.from - b.from })
	var out []byte
	done := 0
	for _, i := range insertions {
		out = append(append(out, src[done:i.from]...), i.text...)
		done = i.to
	}
	out = append(out, src[done:]...)
	// Insertions have plain newlines; a file of Windows has none.
	if bytes.Contains(src, []byte("\r\n")) {
		out = bytes.ReplaceAll(bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	}
	if !bytes.Equal(hclwrite.Format(src), src) {
		return out
	}
	if formatted, ok := format(out); ok {
		return formatted
	}
	return out
}

// nativeBlock finds a block in the syntax tree, nil for JSON.
func (c *Config) nativeBlock(b *hcl.Block) *hclsyntax.Block {
	body, ok := c.files[b.DefRange.Filename].Body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	i, found := slices.BinarySearchFunc(body.Blocks, b.TypeRange.Start.Byte, func(b *hclsyntax.Block, at int) int {
		return b.TypeRange.Start.Byte - at
	})
	if !found {
		return nil
	}
	return body.Blocks[i]
}

// Files are the names of the files that Write changes.
func (e *Edit) Files() []string {
	var names []string
	for _, f := range e.changed {
		names = append(names, f.name)
	}
	return names
}

// quote is a text as an HCL string.
func quote(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

// quoteList is the content of an HCL list of strings.
func quoteList[T any](list []T) string {
	quoted := make([]string, len(list))
	for i, v := range list {
		quoted[i] = quote(fmt.Sprint(v))
	}
	return strings.Join(quoted, ", ")
}

// nodeNames are the names of nodes, to suggest from.
func nodeNames(nodes []*nodeDecl) []string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	return names
}

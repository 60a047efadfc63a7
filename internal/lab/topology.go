package lab

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/poldernet/polder/spec"
)

// Topology is what a lab file describes: links, and the machines on them.
// What the spec already says is not repeated there: the addresses of nodes,
// and the pods.
type Topology struct {
	Links    []*Link
	Machines []*Machine
	// Files is what diagnostics refer to, for hcl.NewDiagnosticTextWriter.
	Files map[string]*hcl.File
}

// Link is an Ethernet segment.
type Link struct {
	Name  string
	MTU   int // bytes
	Range hcl.Range
}

// Role is what a machine is there for.
type Role string

// The roles.
const (
	RoleNode   Role = "node"   // runs polder
	RoleRouter Role = "router" // forwards between links
	RoleHost   Role = "host"   // is somewhere outside
)

// Machine is a namespace with an interface on each of its links. The first is
// called eth0.
type Machine struct {
	Role       Role
	Name       string
	Interfaces []Interface
	Range      hcl.Range
}

// Interface is a machine's interface on a link.
type Interface struct {
	Link      string
	Addresses []netip.Prefix // with the link's prefix length
	Gateways  []netip.Addr   // of default routes, at most one per family
	Range     hcl.Range
}

// defaultMTU is that of Ethernet, in bytes.
const defaultMTU = 1500

// maxHostname is the kernel's limit in bytes (__NEW_UTS_LEN, linux/utsname.h).
const maxHostname = 64

var hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// The lab file's syntax. Everything that is checked beyond it is in check.go.
type (
	fileBlock struct {
		Links   []linkBlock    `hcl:"link,block"`
		Routers []machineBlock `hcl:"router,block"`
		Nodes   []machineBlock `hcl:"node,block"`
		Hosts   []machineBlock `hcl:"host,block"`
	}
	linkBlock struct {
		Name  string    `hcl:"name,label"`
		MTU   *int      `hcl:"mtu"`
		Range hcl.Range `hcl:",def_range"`
	}
	machineBlock struct {
		Name  string           `hcl:"name,label"`
		Links []interfaceBlock `hcl:"link,block"`
		Range hcl.Range        `hcl:",def_range"`
	}
	interfaceBlock struct {
		Link      string         `hcl:"name,label"`
		Addresses hcl.Expression `hcl:"addresses,optional"`
		Gateways  hcl.Expression `hcl:"gateways,optional"`
		Range     hcl.Range      `hcl:",def_range"`
	}
)

// LoadTopology reads a lab file. The topology is usable if the diagnostics
// hold no error; its Files are there in any case.
func LoadTopology(path string) (*Topology, hcl.Diagnostics) {
	src, err := os.ReadFile(path)
	if err != nil {
		return &Topology{}, hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "Lab file cannot be read",
			Detail:   fmt.Sprintf("Reading the lab file: %v.", err),
		}}
	}
	return ParseTopology(path, src)
}

// ParseTopology reads the text of a lab file. The name is for diagnostics.
func ParseTopology(name string, src []byte) (*Topology, hcl.Diagnostics) {
	t := &Topology{}
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if file == nil {
		return t, diags
	}
	t.Files = map[string]*hcl.File{name: file}
	if diags.HasErrors() {
		return t, diags
	}
	var blocks fileBlock
	diags = append(diags, gohcl.DecodeBody(file.Body, nil, &blocks)...)
	for _, b := range blocks.Links {
		l := &Link{Name: b.Name, MTU: defaultMTU, Range: b.Range}
		if b.MTU != nil {
			l.MTU = *b.MTU
		}
		t.Links = append(t.Links, l)
	}
	for _, group := range []struct {
		role   Role
		blocks []machineBlock
	}{{RoleRouter, blocks.Routers}, {RoleNode, blocks.Nodes}, {RoleHost, blocks.Hosts}} {
		for _, b := range group.blocks {
			m, more := newMachine(group.role, b)
			diags = append(diags, more...)
			t.Machines = append(t.Machines, m)
		}
	}
	return t, append(diags, t.check()...)
}

func newMachine(role Role, b machineBlock) (*Machine, hcl.Diagnostics) {
	m := &Machine{Role: role, Name: b.Name, Range: b.Range}
	var diags hcl.Diagnostics
	for _, l := range b.Links {
		i := Interface{Link: l.Link, Range: l.Range}
		wrong := decodeList(l.Addresses, "an address with a prefix length, as 192.0.2.1/24", netip.ParsePrefix, &i.Addresses)
		diags = append(diags, wrong...)
		diags = append(diags, decodeList(l.Gateways, "an address, as 192.0.2.1", netip.ParseAddr, &i.Gateways)...)
		if len(wrong) > 0 {
			i.Gateways = nil // nothing can be said about where they are
		}
		m.Interfaces = append(m.Interfaces, i)
	}
	return m, diags
}

// decodeList reads a list of strings. Each that does not parse is a mistake of
// its own.
func decodeList[T any](expr hcl.Expression, want string, parse func(string) (T, error), into *[]T) hcl.Diagnostics {
	if v, diags := expr.Value(nil); !diags.HasErrors() && v.IsNull() {
		return nil // the attribute is not there
	}
	elements, diags := hcl.ExprList(expr)
	for _, e := range elements {
		var s string
		if more := gohcl.DecodeExpression(e, nil, &s); more.HasErrors() {
			diags = append(diags, more...)
			continue
		}
		v, err := parse(s)
		if err != nil {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Invalid address",
				Detail:   fmt.Sprintf("%q is not %s.", s, want),
				Subject:  e.Range().Ptr(),
			})
			continue
		}
		*into = append(*into, v)
	}
	return diags
}

// Check finds where the lab and a spec do not fit together. Up does it, too.
func (t *Topology) Check(s *spec.Spec) hcl.Diagnostics {
	_, diags := t.complete(s)
	return diags
}

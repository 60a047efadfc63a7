package spec

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/poldernet/polder/spec/selector"
)

// seeds adds the specs of the examples and of the other tests.
func seeds(f *testing.F, add func(name string, text []byte)) {
	f.Helper()
	archives, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	examples, err := filepath.Glob("../examples/*/polder.hcl")
	if err != nil || len(archives) == 0 || len(examples) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if IsSpecFile(file.Name) {
				add(file.Name, file.Data)
			}
		}
	}
	for _, name := range examples {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		add(name, text)
	}
}

// checkLoaded checks what holds of whatever was loaded.
func checkLoaded(t *testing.T, c *Config, diags hcl.Diagnostics) {
	t.Helper()
	if diags.HasErrors() != (c.Spec == nil) {
		t.Fatalf("a spec %v with diagnostics %v", c.Spec, diags)
	}
	for _, d := range diags {
		if d.Subject != nil && c.files[d.Subject.Filename] == nil {
			t.Errorf("%s points to a file that was not read", d)
		}
	}
	if err := c.WriteDiagnostics(io.Discard, diags, true, 80); err != nil {
		t.Error(err)
	}
	if c.Spec == nil {
		return
	}
	s := c.Spec
	checkPolicies(t, s)
	if s.Network == nil {
		return
	}
	for _, r := range s.Network.Pods {
		if !r.CIDR.Contains(r.SubnetMin) || !r.CIDR.Contains(r.SubnetMax) || r.SubnetMax.Less(r.SubnetMin) {
			t.Errorf("range %+v", r)
		}
		var subnets []netip.Prefix
		for _, n := range s.Nodes {
			p, ok := n.Subnet(r.Family())
			if !ok || p != p.Masked() || p.Bits() != r.SubnetLen || p.Addr().Less(r.SubnetMin) || r.SubnetMax.Less(p.Addr()) {
				t.Errorf("subnet %s of node %s in %+v", p, n.Name, r)
			}
			subnets = append(subnets, p)
		}
		slices.SortFunc(subnets, netip.Prefix.Compare)
		if len(slices.Compact(subnets)) != len(s.Nodes) {
			t.Errorf("subnets are not distinct: %v", subnets)
		}
	}
	for _, r := range s.Network.Pods {
		macs := make(map[MAC]bool)
		for _, n := range s.Nodes {
			if _, ok := n.Address(s.UnderlayFamily(r.Family())); !ok {
				t.Errorf("node %s has no underlay for %s", n.Name, r.Family())
			}
			if s.Network.Backend.Type == VXLAN {
				macs[s.VTEPMAC(n, s.UnderlayFamily(r.Family()))] = true
			}
		}
		if s.Network.Backend.Type == VXLAN && len(macs) != len(s.Nodes) {
			t.Error("VTEPs share MACs")
		}
	}
}

func FuzzLoad(f *testing.F) {
	seeds(f, func(name string, text []byte) { f.Add(text, strings.HasSuffix(name, ".json")) })
	for _, d := range deep {
		f.Add(d.text(2*maxNesting), d.isJSON)
	}
	base := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		name := filepath.Join(base, "fuzz.hcl")
		if isJSON {
			name += ".json"
		}
		c, diags := build(name, Inputs{Environ: []string{"POLDER_VAR_name=[1"}}, []source{{name, text}}, newReader(), demandSubnets)
		checkLoaded(t, c, diags)
	})
}

// FuzzVariable gives text to variables of several types.
func FuzzVariable(f *testing.F) {
	f.Add(`["a"]`)
	f.Add(`{ a = 1 }`)
	f.Add(`1e400`)
	f.Add("${")
	const text = `
cluster = "edge"
variable "text" { type = string }
variable "number" { type = number }
variable "list" { type = list(string) }
variable "object" { type = object({ a = number, b = optional(string, "c") }) }
variable "any" { type = any }
`
	f.Fuzz(func(t *testing.T, value string) {
		var in Inputs
		for _, name := range []string{"text", "number", "list", "object", "any"} {
			in.Vars = append(in.Vars, name+"="+value)
		}
		c, diags := build("fuzz.hcl", in, []source{{"fuzz.hcl", []byte(text)}}, newReader(), demandSubnets)
		checkLoaded(t, c, diags)
	})
}

func FuzzFormat(f *testing.F) {
	seeds(f, func(name string, text []byte) {
		if !strings.HasSuffix(name, ".json") {
			f.Add(text)
		}
	})
	f.Add([]byte("cluster = 1.5. 0 #"))
	f.Fuzz(func(t *testing.T, text []byte) {
		formatted, _, diags := Format("fuzz.hcl", text)
		if diags.HasErrors() {
			return
		}
		before, beforeDiags := build("fuzz.hcl", Inputs{}, []source{{"fuzz.hcl", text}}, newReader(), demandSubnets)
		after, afterDiags := build("fuzz.hcl", Inputs{}, []source{{"fuzz.hcl", formatted}}, newReader(), demandSubnets)
		if len(beforeDiags) != len(afterDiags) || !reflect.DeepEqual(unplaced(before.Spec), unplaced(after.Spec)) {
			t.Errorf("formatted, it means something else:\n%s\nwas\n%s\n%v\n%v", formatted, text, beforeDiags, afterDiags)
		}
	})
}

// unplaced is a spec without the places in files.
func unplaced(s *Spec) *Spec {
	if s != nil {
		unplace(reflect.ValueOf(s))
	}
	return s
}

func unplace(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*selector.Selector]() {
			unplace(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			unplace(v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[hcl.Range]() {
			v.SetZero()
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				unplace(v.Field(i))
			}
		}
	}
}

func FuzzAssign(f *testing.F) {
	seeds(f, func(name string, text []byte) {
		if !strings.HasSuffix(name, ".json") {
			f.Add(text)
		}
	})
	f.Fuzz(func(t *testing.T, text []byte) {
		name := filepath.Join(t.TempDir(), "fuzz.hcl")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		before, _ := build(name, Inputs{}, []source{{name, text}}, newReader(), subnetsToCome)
		for what, edited := range map[string]func() (*Edit, hcl.Diagnostics){
			"assign": func() (*Edit, hcl.Diagnostics) { return Assign(name, Inputs{}) },
			"add": func() (*Edit, hcl.Diagnostics) {
				return AddNode(name, Inputs{}, "fuzzed", "192.0.2.99", "2001:db8::99")
			},
		} {
			edit, diags := edited()
			if diags.HasErrors() {
				if len(edit.Files()) > 0 {
					t.Errorf("%s: with errors, %v would be written", what, edit.Files())
				}
				continue
			}
			checkEdited(t, what, before, edit)
		}
	})
}

// checkEdited checks that an edit moves no subnet that was there.
func checkEdited(t *testing.T, what string, before *Config, edit *Edit) {
	t.Helper()
	if before.Spec == nil {
		return
	}
	for _, old := range before.Spec.Nodes {
		now := edit.Config.Spec.Node(old.Name)
		if now == nil {
			t.Fatalf("%s: node %s is gone", what, old.Name)
		}
		if what == "assign" {
			for _, r := range podRanges(before.Spec) {
				if _, ok := now.Subnet(r.Family()); !ok {
					t.Errorf("node %s has no %s subnet still", now.Name, r.Family())
				}
			}
		}
		for _, p := range old.Subnets {
			if !slices.Contains(now.Subnets, p) {
				t.Errorf("%s: node %s lost %s for %v", what, old.Name, p, now.Subnets)
			}
		}
	}
}

func podRanges(s *Spec) []PodRange {
	if s.Network == nil {
		return nil
	}
	return s.Network.Pods
}

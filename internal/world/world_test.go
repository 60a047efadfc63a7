package world

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// What is printed of a world loads as the same world.
func TestPrintedWorldLoads(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		sp := Draw(t)
		if rapid.Bool().Draw(t, "edited") {
			sp = Edit(t, sp)
		}
		sp.Policies = slices.DeleteFunc(sp.Policies, func(p *spec.Policy) bool { return p.Kind != spec.KindPolicy })
		text := HCL(sp)
		if err := os.WriteFile(filepath.Join(dir, "world.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		config, diags := spec.Load(dir, spec.Inputs{})
		if diags.HasErrors() {
			t.Fatalf("%v\nin\n%s", diags, text)
		}
		got := config.Spec
		got.Network = sp.Network // of which only a part is of interest
		if where := difference(reflect.ValueOf(got), reflect.ValueOf(sp), "spec"); where != "" {
			t.Fatalf("%s of\n%s", where, text)
		}
	})
}

// difference says where two values differ, but for the places in files, and
// nothing where they do not. An empty list or map is none but in rules and
// failsafes, where it is not.
func difference(got, want reflect.Value, where string) string {
	if got.IsValid() && got.CanInterface() {
		switch a := got.Interface().(type) {
		case hcl.Range:
			return ""
		case *selector.Selector:
			b := want.Interface().(*selector.Selector)
			if (a == nil) != (b == nil) || a != nil && a.String() != b.String() {
				return where + " is another selector"
			}
			return ""
		}
	}
	switch got.Kind() {
	case reflect.Pointer:
		if got.IsNil() != want.IsNil() {
			return where + " is there in one only"
		}
		if got.IsNil() {
			return ""
		}
		return difference(got.Elem(), want.Elem(), where)
	case reflect.Struct:
		if !got.Type().Comparable() || got.NumField() == 0 || got.Type().PkgPath() != "net/netip" {
			for i := range got.NumField() {
				field := got.Type().Field(i).Name
				if s := difference(got.Field(i), want.Field(i), where+"."+field); s != "" {
					return s
				}
			}
			return ""
		}
	case reflect.Slice:
		rule := got.Type() == reflect.TypeFor[[]spec.Peer]() || got.Type() == reflect.TypeFor[[]spec.Service]()
		if got.Len() != want.Len() || rule && got.IsNil() != want.IsNil() {
			return where + " is longer in one"
		}
		for i := range got.Len() {
			if s := difference(got.Index(i), want.Index(i), where+"[]"); s != "" {
				return s
			}
		}
		return ""
	case reflect.Map:
		if got.Len() == 0 && want.Len() == 0 {
			return ""
		}
	}
	if !reflect.DeepEqual(got.Interface(), want.Interface()) {
		return where + " differs"
	}
	return ""
}

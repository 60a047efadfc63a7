package kube_test

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/txtar"
	networkingv1 "k8s.io/api/networking/v1"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/poldernet/polder/policy/kube"
	"github.com/poldernet/polder/spec"
)

// checkPolicy checks what holds of whatever was read.
func checkPolicy(t *testing.T, p *spec.Policy) {
	t.Helper()
	if p.Namespace == "" || p.Selector == nil || len(p.Types) == 0 {
		t.Fatalf("a policy for everybody: %+v", p)
	}
	for _, d := range spec.Directions {
		if !p.Applies(d) && len(p.Rules(d)) > 0 {
			t.Errorf("rules for %s, which is not a type", d)
		}
		for _, r := range p.Rules(d) {
			if r.Action != spec.Allow {
				t.Errorf("action %s", r.Action)
			}
			for _, q := range r.Peers {
				if (q.Endpoints == nil) == (q.Block == nil) {
					t.Errorf("peer %+v", q)
				}
				if q.Endpoints != nil && q.Endpoints.Selector == nil && q.Endpoints.Namespaces == nil {
					t.Error("a peer that selects nothing")
				}
				if b := q.Block; b != nil {
					for _, e := range b.Except {
						if e != e.Masked() || !b.CIDR.Contains(e.Addr()) || e.Bits() <= b.CIDR.Bits() {
							t.Errorf("except %s of %s", e, b.CIDR)
						}
					}
					if !b.CIDR.IsValid() || b.CIDR != b.CIDR.Masked() || b.CIDR.Addr().Is4In6() {
						t.Errorf("cidr %s", b.CIDR)
					}
				}
			}
			for _, s := range r.Services {
				zero := s.Ports.IsZero()
				if s.Protocol == 0 || s.Name != "" && !zero || !zero && (s.Ports.First == 0 || s.Ports.Last < s.Ports.First) {
					t.Errorf("service %+v", s)
				}
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, pattern := range []string{"testdata/accepted/*.yaml", "testdata/rejected/*.yaml"} {
		samples(f, pattern, func(_ *testing.T, _ string, text []byte) { f.Add(text) })
	}
	archives, err := filepath.Glob("testdata/diagnostics/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		policies, diags := kube.Decode("fuzz.yaml", text)
		inside := func(r hcl.Range) {
			if r.Filename != "fuzz.yaml" || r.Start.Line < 1 || r.Start.Column < 1 || r.Start.Byte > r.End.Byte || r.End.Byte > len(text) {
				t.Errorf("place %v", r)
			}
		}
		for _, d := range diags {
			inside(*d.Subject)
		}
		for _, p := range policies {
			checkPolicy(t, p)
			inside(p.Range)
			for _, r := range append(p.Ingress, p.Egress...) {
				inside(r.Range)
				for _, q := range r.Peers {
					inside(q.Range)
				}
			}
		}
		rendered(t, "fuzz.yaml", text, diags)
	})
}

// FuzzConvert converts objects from JSON, and compares with files that hold
// them: what is a problem in the one is an error in the other.
func FuzzConvert(f *testing.F) {
	for _, pattern := range []string{"testdata/accepted/*.yaml", "testdata/rejected/*.yaml"} {
		samples(f, pattern, func(_ *testing.T, _ string, text []byte) {
			if text, err := kubeyaml.YAMLToJSON(text); err == nil {
				f.Add(text)
			}
		})
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		np := new(networkingv1.NetworkPolicy)
		if json.Unmarshal(text, np) != nil {
			t.Skip()
		}
		before := np.DeepCopy()
		p, problems := kube.Convert(np)
		checkPolicy(t, p)
		if !reflect.DeepEqual(np, before) {
			t.Error("the object was changed")
		}
		np.APIVersion, np.Kind = "networking.k8s.io/v1", "NetworkPolicy"
		written, err := json.Marshal(np)
		if err != nil {
			t.Fatal(err)
		}
		list, diags := kube.Decode("fuzz.json", written)
		if diags.HasErrors() {
			return
		}
		if len(list) != 1 || len(problems) > 0 || told(list[0]) != told(p) {
			t.Errorf("%s\nas a file: %v\nas an object: %s%v", written, list, told(p), problems)
		}
	})
}

package lab

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/examples"
	"github.com/poldernet/polder/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// misfit is a spec for which testdata/topology/spec.lab.hcl is not made.
func misfit() *spec.Spec {
	n1 := &spec.Node{Name: "n1", Addresses: []spec.NodeAddress{{
		Addr: netip.MustParseAddr("192.0.2.11"), Link: netip.MustParsePrefix("192.0.2.0/24"),
	}}}
	n2 := &spec.Node{Name: "n2", Addresses: []spec.NodeAddress{{Addr: netip.MustParseAddr("192.0.2.12")}}}
	return &spec.Spec{
		Nodes: []*spec.Node{n1, n2, {Name: "n3"}},
		Endpoints: []*spec.Endpoint{
			{Name: "db-1", Node: "n1"},
			{Name: "web-1", Node: "n1", Interface: "veth-web-1"},
		},
	}
}

// Every mistake is found, all at once, and shown where it is.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/topology/*" + ".lab.hcl")
	if err != nil || len(files) == 0 {
		t.Fatal("no test files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			topo, diags := LoadTopology(file)
			if !diags.HasErrors() {
				diags = append(diags, topo.Check(misfit())...)
			}
			if !diags.HasErrors() {
				t.Fatal("no mistake was found")
			}
			var out bytes.Buffer
			if err := hcl.NewDiagnosticTextWriter(&out, topo.Files, 100, false).WriteDiagnostics(diags); err != nil {
				t.Fatal(err)
			}
			golden(t, file[:len(file)-len(".lab.hcl")]+".golden", out.Bytes())
		})
	}
}

func TestMissingFile(t *testing.T) {
	if _, diags := LoadTopology("testdata/nothing.lab.hcl"); !diags.HasErrors() {
		t.Error("no mistake was found")
	}
}

// A node's first interface gets the spec's addresses, with the link's prefix
// length, and a pod the prefix length of its node's subnet.
func TestComplete(t *testing.T) {
	topo, diags := ParseTopology("t", []byte(`
		link "lan" {}
		link "back" { mtu = 9000 }
		node "n1" {
		  link "lan"  { gateways = ["192.0.2.1"] }
		  link "back" { addresses = ["198.51.100.11/24"] }
		}`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	b, diags := topo.complete(&spec.Spec{
		Nodes: []*spec.Node{{
			Name:      "n1",
			Addresses: []spec.NodeAddress{{Addr: netip.MustParseAddr("192.0.2.11"), Link: netip.MustParsePrefix("192.0.2.0/25")}},
			Subnets:   []netip.Prefix{netip.MustParsePrefix("10.244.1.0/26"), netip.MustParsePrefix("fd00:1::/64")},
		}},
		Endpoints: []*spec.Endpoint{{
			Name: "web", Node: "n1", Interface: "veth-web",
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:1::5")},
		}},
	})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got := b.machines[0].Interfaces[0].Addresses[0].String(); got != "192.0.2.11/25" {
		t.Errorf("address of the first interface: %s", got)
	}
	if got := b.machines[0].Interfaces[1].Addresses[0].String(); got != "198.51.100.11/24" {
		t.Errorf("address of the second interface: %s", got)
	}
	if topo.Machines[0].Interfaces[0].Addresses != nil {
		t.Error("the topology itself was changed")
	}
	p := b.pods[0]
	if p.addresses[0].String() != "10.244.1.5/26" || p.gateways[0].String() != "10.244.1.1" ||
		p.addresses[1].String() != "fd00:1::5/64" || p.gateways[1].String() != "fd00:1::1" {
		t.Errorf("pod %+v", p)
	}
}

// Without a network block the lab makes the pod network: bridges, and routes on
// what is on a node's link.
func TestBeside(t *testing.T) {
	topo, diags := ParseTopology("t", []byte(`
		link "lan" {}
		link "wan" {}
		node "n1" {
		  link "lan" {}
		}
		router "r1" {
		  link "wan" { addresses = ["203.0.113.1/24"] }
		  link "lan" { addresses = ["192.0.2.1/24"] }
		}
		host "outside" {
		  link "wan" { addresses = ["203.0.113.99/24"] }
		}`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	s := &spec.Spec{
		Nodes: []*spec.Node{{
			Name:      "n1",
			Addresses: []spec.NodeAddress{{Addr: netip.MustParseAddr("192.0.2.11"), Link: netip.MustParsePrefix("192.0.2.0/24")}},
			Subnets:   []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		}},
		Endpoints:   []*spec.Endpoint{{Name: "web", Node: "n1", Interface: "veth-web", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5")}}},
		Enforcement: spec.Enforcement{Bridge: "br0"},
	}
	b, diags := topo.complete(s)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	bridges := []bridge{{"n1", "br0", []netip.Prefix{netip.MustParsePrefix("10.244.1.1/24"), netip.MustParsePrefix("fd00:1::1/64")}}}
	leads := []route{{"r1", netip.MustParsePrefix("10.244.1.0/24"), netip.MustParseAddr("192.0.2.11")}}
	if !reflect.DeepEqual(b.bridges, bridges) || !slices.Equal(b.routes, leads) || b.pods[0].bridge != "br0" {
		t.Errorf("%+v", b)
	}
	s.Network = &spec.Network{}
	if b, _ = topo.complete(s); b.bridges != nil || b.routes != nil || b.pods[0].bridge != "" {
		t.Errorf("with a network block: %+v", b)
	}
}

// The examples' labs fit their specs.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/*.lab.hcl")
	if err != nil || len(files) < 7 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		topo, diags := LoadTopology(file)
		config, more := spec.Load(filepath.Dir(file), spec.Inputs{})
		if diags = append(diags, more...); diags.HasErrors() {
			t.Errorf("%s: %v", file, diags)
			continue
		}
		if diags := topo.Check(config.Spec); diags.HasErrors() {
			t.Errorf("%s: %v", file, diags)
		}
	}
	if _, err := examples.FS.ReadDir(examples.Demo); err != nil {
		t.Errorf("the demo's example: %v", err)
	}
}

func FuzzParseTopology(f *testing.F) {
	files, err := filepath.Glob("testdata/topology/*.lab.hcl")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "testdata/three-nodes.lab.hcl") {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	s := misfit()
	f.Fuzz(func(t *testing.T, src []byte) {
		topo, diags := ParseTopology("fuzz.lab.hcl", src)
		if diags.HasErrors() {
			return
		}
		// What is accepted can be built: every interface is on a link.
		links := map[string]bool{}
		for _, l := range topo.Links {
			links[l.Name] = true
		}
		for _, m := range topo.Machines {
			for _, i := range m.Interfaces {
				if !links[i.Link] {
					t.Fatalf("%s is on no link", m.Name)
				}
			}
		}
		if _, diags := topo.complete(s); diags.HasErrors() != topo.Check(s).HasErrors() {
			t.Fatal("Check and Up disagree")
		}
	})
}

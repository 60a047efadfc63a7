package spec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/poldernet/polder/spec"
)

// largeSpec has nodes with both families and two endpoints each, as blocks or
// by for_each.
func largeSpec(nodes int, forEach bool) string {
	var b strings.Builder
	b.WriteString("cluster = \"edge\"\nnetwork {\n  pod_cidrs  = [\"10.0.0.0/10\", \"fd00:10::/44\"]\n  subnet_len = { ipv4 = 24 }\n}\n")
	if forEach {
		fmt.Fprintf(&b, `
node "n" {
  for_each  = merge([for chunk in range(%d) : { for i in range(1000) : format("n%%04d", chunk * 1000 + i) => chunk * 1000 + i }]...)
  name      = each.key
  addresses = [cidrhost("172.16.0.0/16", each.value + 1), cidrhost("2001:db8::/64", each.value + 1)]
  subnets   = [cidrsubnet("10.0.0.0/10", 14, each.value + 1), cidrsubnet("fd00:10::/44", 20, each.value + 1)]
}
`, nodes/1000)
		return b.String()
	}
	for i := range nodes {
		n := i + 1
		fmt.Fprintf(&b, "node \"n%04d\" {\n  addresses = [\"172.16.%d.%d/16\", \"2001:db8::%x\"]\n  subnets   = [\"10.%d.%d.0/24\", \"fd00:10:0:%x::/64\"]\n}\n",
			i, n/256, n%256, n, n/256, n%256, n)
		for e := range 2 {
			fmt.Fprintf(&b, "endpoint \"e%04d-%d\" {\n  node      = \"n%04d\"\n  interface = \"veth%d\"\n  addresses = [\"10.%d.%d.%d\"]\n  labels    = { app = \"web\" }\n}\n",
				i, e, i, e, n/256, n%256, 5+e)
		}
	}
	return b.String()
}

func BenchmarkLoad(b *testing.B) {
	for _, form := range []string{"blocks", "for_each"} {
		for _, nodes := range []int{1000, 5000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", form, nodes), func(b *testing.B) {
				w := newWorkbench(b)
				text := largeSpec(nodes, form == "for_each")
				w.put(b, map[string]string{"polder.hcl": text})
				b.ReportAllocs()
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					config, diags := spec.Load(string(w), spec.Inputs{})
					if diags.HasErrors() || len(config.Spec.Nodes) != nodes {
						b.Fatalf("%s", rendered(b, config, diags))
					}
				}
			})
		}
	}
}

// BenchmarkLoadPolicies reads policies with two rules each.
func BenchmarkLoadPolicies(b *testing.B) {
	const policies = 10_000
	var text strings.Builder
	text.WriteString("cluster = \"edge\"\n")
	for i := range policies {
		fmt.Fprintf(&text, "policy \"p%d\" {\n  selector = \"app == 'a%d'\"\n  ingress {\n    action = \"allow\"\n    ports = [\"80/tcp\"]\n    from {\n      selector = \"app in {'a%d', 'b'}\"\n    }\n  }\n"+
			"  egress {\n    action = \"allow\"\n    to {\n      cidr = \"10.0.0.0/8\"\n      except = [\"10.1.0.0/16\"]\n    }\n  }\n}\n", i, i, i)
	}
	w := newWorkbench(b)
	w.put(b, map[string]string{"polder.hcl": text.String()})
	b.ReportAllocs()
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		config, diags := spec.Load(string(w), spec.Inputs{})
		if diags.HasErrors() || len(config.Spec.Policies) != policies {
			b.Fatalf("%s", rendered(b, config, diags))
		}
	}
}

func BenchmarkAssign(b *testing.B) {
	const nodes = 5000
	w := newWorkbench(b)
	w.put(b, map[string]string{"polder.hcl": strings.Replace(largeSpec(nodes, false), "  subnets   = [\"10.0.7.0/24\", \"fd00:10:0:7::/64\"]\n", "", 1)})
	b.ReportAllocs()
	for b.Loop() {
		edit, diags := spec.Assign(string(w), spec.Inputs{})
		if diags.HasErrors() || len(edit.Assignments) != 1 {
			b.Fatalf("%s", rendered(b, edit.Config, diags))
		}
	}
}

package spec_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/spec"
)

// item is a block of a generated spec, or with no name the whole of it. It is
// rendered in both syntaxes.
type item struct {
	block string
	label string
	attrs map[string]any // text, number, bool, list, map
	items []item
}

func (it item) native(indent string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(it.attrs)) {
		fmt.Fprintf(&b, "%s%s = %s\n", indent, name, nativeValue(it.attrs[name]))
	}
	for _, inner := range it.items {
		fmt.Fprintf(&b, "%s%s ", indent, inner.block)
		if inner.label != "" {
			fmt.Fprintf(&b, "%q ", inner.label)
		}
		fmt.Fprintf(&b, "{\n%s%s}\n", inner.native(indent+"  "), indent)
	}
	return b.String()
}

func nativeValue(v any) string {
	switch v := v.(type) {
	case []string:
		var quoted []string
		for _, s := range v {
			quoted = append(quoted, nativeValue(s))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case map[string]any:
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			pairs = append(pairs, nativeValue(key)+" = "+nativeValue(v[key]))
		}
		return "{ " + strings.Join(pairs, ", ") + " }"
	case string:
		return fmt.Sprintf("%q", v)
	default:
		return fmt.Sprint(v)
	}
}

func (it item) json() map[string]any {
	out := make(map[string]any)
	maps.Copy(out, it.attrs)
	for _, inner := range it.items {
		content := inner.json()
		if inner.label == "" {
			list, _ := out[inner.block].([]any)
			out[inner.block] = append(list, content)
			continue
		}
		labels, ok := out[inner.block].(map[string]any)
		if !ok {
			labels = make(map[string]any)
			out[inner.block] = labels
		}
		labels[inner.label] = content
	}
	return out
}

// pods is the range of the pods of a family, as the generator thinks of it.
type pods struct {
	cidr     netip.Prefix
	bits     int
	min, max int // numbers of subnets
}

// subnet is computed by other means than the package has.
func (p pods) subnet(i int) netip.Prefix {
	base := p.cidr.Addr().AsSlice()
	n := new(big.Int).SetBytes(base)
	n.Add(n, new(big.Int).Lsh(big.NewInt(int64(i)), uint(len(base)*8-p.bits)))
	addr, _ := netip.AddrFromSlice(n.FillBytes(base))
	return netip.PrefixFrom(addr, p.bits)
}

// generated is a valid spec, but for nodes without subnets.
type generated struct {
	item
	pods   map[spec.Family]pods
	given  map[string]map[spec.Family]int // number of the subnet by node
	lacked int                            // subnets that nodes are without
}

// genSpec draws a spec. With lacking, some nodes are without some subnets.
func genSpec(t *rapid.T, lacking bool) generated {
	g := generated{pods: make(map[spec.Family]pods), given: make(map[string]map[spec.Family]int)}
	g.attrs = map[string]any{"cluster": rapid.StringMatching(`[a-z]([-a-z0-9]{0,8}[a-z0-9])?`).Draw(t, "cluster")}
	families := rapid.SampledFrom([][]spec.Family{{spec.IPv4}, {spec.IPv6}, {spec.IPv4, spec.IPv6}, {spec.IPv6, spec.IPv4}}).Draw(t, "families")
	hostGW := rapid.Bool().Draw(t, "host-gw")

	network := item{block: "network", attrs: make(map[string]any)}
	var cidrs, mins, maxs []string
	lens := make(map[string]any)
	for _, f := range families {
		p := pods{cidr: netip.MustParsePrefix("10.244.0.0/16"), bits: 24}
		if f == spec.IPv6 {
			p = pods{cidr: netip.MustParsePrefix("fd00:10:244::/48"), bits: 64}
		}
		if rapid.Bool().Draw(t, "subnet_len") {
			p.bits = rapid.IntRange(p.cidr.Bits()+2, p.cidr.Bits()+12).Draw(t, "bits")
			lens[f.String()] = p.bits
		}
		last := 1<<(p.bits-p.cidr.Bits()) - 1
		p.min, p.max = 1, last
		if rapid.Bool().Draw(t, "subnet_min") {
			p.min = rapid.IntRange(0, last).Draw(t, "min")
			mins = append(mins, p.subnet(p.min).Addr().String())
		}
		if rapid.Bool().Draw(t, "subnet_max") {
			p.max = rapid.IntRange(p.min, min(last, p.min+9)).Draw(t, "max")
			maxs = append(maxs, p.subnet(p.max).Addr().String())
		}
		g.pods[f] = p
		cidrs = append(cidrs, p.cidr.String())
	}
	network.attrs["pod_cidrs"] = cidrs
	if len(lens) > 0 {
		network.attrs["subnet_len"] = lens
	}
	for name, list := range map[string][]string{"subnet_min": mins, "subnet_max": maxs} {
		switch len(list) {
		case 1:
			network.attrs[name] = list[0]
		case 2:
			network.attrs[name] = list
		}
	}
	if hostGW {
		network.items = append(network.items, item{block: "backend", label: "host-gw"})
	} else if rapid.Bool().Draw(t, "vxlan") {
		network.items = append(network.items, item{block: "backend", label: "vxlan", attrs: map[string]any{"vni": rapid.IntRange(1, 99999).Draw(t, "vni")}})
	}
	if rapid.Bool().Draw(t, "masquerade") {
		network.items = append(network.items, item{block: "masquerade", attrs: map[string]any{"random_fully": rapid.Bool().Draw(t, "random_fully")}})
	}
	g.items = append(g.items, network)
	g.nodes(t, families, hostGW, lacking)
	g.addPolicies(t, lacking)
	return g
}

func (g *generated) nodes(t *rapid.T, families []spec.Family, hostGW, lacking bool) {
	count := rapid.IntRange(0, 6).Draw(t, "nodes")
	for _, f := range families {
		if p := g.pods[f]; !lacking {
			count = min(count, p.max-p.min+1)
		}
	}
	free := make(map[spec.Family][]int)
	for _, f := range families {
		p := g.pods[f]
		window := min(p.max-p.min+1, 12)
		free[f] = rapid.Permutation(slices.Collect(func(yield func(int) bool) {
			for i := range window {
				if !yield(p.min + i) {
					return
				}
			}
		})).Draw(t, "subnets")
	}
	for i := range count {
		name := fmt.Sprintf("n%d", i)
		n := item{block: "node", label: name, attrs: make(map[string]any)}
		addresses := []string{fmt.Sprintf("192.0.2.%d/24", i+1)}
		if hostGW || rapid.Bool().Draw(t, "address of IPv6") {
			addresses = append(addresses, fmt.Sprintf("2001:db8::%x", i+1))
		}
		n.attrs["addresses"] = addresses
		g.given[name] = make(map[spec.Family]int)
		var subnets, inside []string
		for _, f := range families {
			if len(free[f]) == 0 || lacking && rapid.Bool().Draw(t, "lacks "+f.String()) {
				g.lacked++
				continue
			}
			number := free[f][0]
			free[f] = free[f][1:]
			g.given[name][f] = number
			subnet := g.pods[f].subnet(number)
			subnets = append(subnets, subnet.String())
			inside = append(inside, subnet.Addr().Next().Next().String())
		}
		if len(subnets) > 0 || rapid.Bool().Draw(t, "empty list") {
			n.attrs["subnets"] = subnets
		}
		g.items = append(g.items, n)
		if rapid.Bool().Draw(t, "endpoint") {
			e := item{block: "endpoint", label: "e" + name, attrs: map[string]any{"node": name, "labels": map[string]any{"app": name}}}
			if len(inside) > 0 {
				e.attrs["addresses"] = inside
			}
			g.items = append(g.items, e)
		}
	}
}

// workbench is a folder for the files of one case after another.
type workbench string

func newWorkbench(t testing.TB) workbench { return workbench(t.TempDir()) }

// put makes the folder hold these files and no others.
func (w workbench) put(t fataler, files map[string]string) {
	t.Helper()
	old, err := os.ReadDir(string(w))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range old {
		if err := os.Remove(filepath.Join(string(w), entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(string(w), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (w workbench) read(t fataler, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(string(w), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// load is the dump of the spec in the folder, which must be valid.
func (w workbench) load(t fataler, files map[string]string) string {
	t.Helper()
	w.put(t, files)
	config, diags := spec.Load(string(w), spec.Inputs{})
	if len(diags) > 0 {
		t.Fatalf("%s", rendered(t, config, diags))
	}
	return string(dump(t, config.Spec))
}

func jsonText(t fataler, it item) string {
	t.Helper()
	text, err := json.Marshal(it.json())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

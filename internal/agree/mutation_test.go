package agree

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
)

// mutation is a bug that somebody could make.
type mutation struct {
	name     string
	file     string // below the module
	old, new string // a piece of the file, and what stands for it
}

var mutations = []mutation{
	{
		"exceptions of blocks are dropped", "policy/ranges.go",
		"return without(rangeOf(b.CIDR), holes)",
		"return without(rangeOf(b.CIDR), holes[:0])",
	},
	{
		"a named port has the numbers of all endpoints", "policy/compile_match.go",
		"keys = append(keys, nft.Tuple(nft.Addr(a), nft.Port(e.Ports[name].Number)))",
		`for _, o := range c.x.endpoints {
			if p, ok := o.Ports[name]; ok {
				keys = append(keys, nft.Tuple(nft.Addr(a), nft.Port(p.Number)))
			}
		}`,
	},
	{
		"egress is ignored", "policy/compile_base.go",
		`if name := found.Get(f).egress; name != "" {`,
		`if name := found.Get(f).egress; name == "none" {`,
	},
	{
		"policies of one order are not looked at by name", "policy/model.go",
		"for _, p := range selecting {",
		`selecting = slices.Clone(selecting)
	slices.SortStableFunc(selecting, func(a, b *spec.Policy) int {
		switch {
		case a.Tier != b.Tier || a.Order == nil || b.Order == nil || *a.Order != *b.Order:
			return m.compare(a, b)
		}
		return cmp.Compare(b.Name, a.Name)
	})
	for _, p := range selecting {`,
	},
	{
		"what is passed on is allowed", "policy/compile.go",
		"do = nft.Do(nft.CounterRef{Name: counter}, next)",
		"do = nft.Do(nft.CounterRef{Name: counter}, s.allowed())",
	},
	{
		"the server's address is matched before NAT", "nft/build_ct.go",
		"return ctSaddr(f, Reply)",
		`return ct(spec.PerFamily[CTKey]{IPv4: CTKeyDstIPv4, IPv6: CTKeyDstIPv6}.Get(f), Original, int(families.Get(f).addrLen))`,
	},
	{
		"the server's port is matched before NAT", "nft/build_ct.go",
		"return ct(CTKeyProtoSrc, Reply, 2)",
		"return ct(CTKeyProtoDst, Original, 2)",
	},
	{
		"the client's address is matched in the header", "policy/compile_match.go",
		"return nft.CTOriginalSaddr(s.family)",
		"return nft.Saddr(s.family)",
	},
}

// Each of the bugs makes the evaluator and the rules disagree.
func TestMutationsAreCaught(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			m.caught(t, disagreement, "-run", "^TestEvaluatorAndRulesAgree$", ".",
				"-rapid.checks=3000", "-rapid.shrinktime=1ms", "-rapid.nofailfile")
		})
	}
}

// unsafe are ways to change rules by which a packet sees half of a change.
var unsafe = []mutation{
	{
		"everything in one transaction", "nft/diff.go",
		"p.Retire.transactions = pack(d.retire)\n",
		`p.Retire.transactions = pack(d.retire)
	var whole transaction
	for _, s := range []Stage{p.Prepare, p.Switch, p.Retire} {
		for _, tx := range s.transactions {
			whole = append(whole, tx...)
		}
	}
	p.Prepare, p.Switch, p.Retire = Stage{}, Stage{[]transaction{whole}}, Stage{}
`,
	},
	{
		"sets are changed in place whatever changes with them", "policy/live.go",
		"if len(changed) == 0 || harmless && (known && c.within(x.given) || !known && c.inForce(live)) {",
		"if len(changed) >= 0 {",
	},
	{
		"an endpoint's rules change along with its sets", "policy/via.go",
		"return []nft.Table{nft.Merge(before), nft.Merge(after)}, true",
		"return nil, true",
	},
}

// Each of them loses or leaks packets under a flood.
func TestFloodFindsUnsafeChanges(t *testing.T) {
	lab.Require(t)
	for _, m := range unsafe {
		t.Run(m.name, func(t *testing.T) {
			m.caught(t, "db heard bad", "-run", "^TestFlood$", "../../policy", "-flood.changes=3000")
		})
	}
}

// caught runs tests with the bug planted, and fails unless they fail and say so.
func (m mutation) caught(t *testing.T, says string, test ...string) {
	t.Helper()
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(module, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s has %d times\n%s", m.file, n, m.old)
	}
	dir := t.TempDir()
	mutated := filepath.Join(dir, filepath.Base(m.file))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		mutated:                            []byte(strings.Replace(string(source), m.old, m.new, 1)),
		filepath.Join(dir, "overlay.json"): overlay,
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"test", "-count=1", "-vet=off", "-overlay", filepath.Join(dir, "overlay.json")}, test...)
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	switch {
	case err == nil:
		t.Errorf("nobody noticed\n%s", out)
	case !strings.Contains(string(out), says):
		t.Errorf("%v\n%s", err, out)
	}
}

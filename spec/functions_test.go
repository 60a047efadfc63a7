package spec

import (
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	"pgregory.net/rapid"
)

func evalText(t testing.TB, base, text string) (cty.Value, hcl.Diagnostics) {
	t.Helper()
	expr, diags := hclsyntax.ParseExpression([]byte(text), "test", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags)
	}
	return expr.Value(&hcl.EvalContext{Functions: functions(base, readRegular)})
}

// TestFunctions has Terraform's documented examples of the functions that are
// ours, in both families, and one use of those that cty has under other names
// than Terraform.
func TestFunctions(t *testing.T) {
	base := t.TempDir()
	if err := os.WriteFile(filepath.Join(base, "key.txt"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`cidrhost("10.12.112.0/20", 16)`:                                     `"10.12.112.16"`,
		`cidrhost("10.12.112.0/20", 268)`:                                    `"10.12.113.12"`,
		`cidrhost("10.12.127.255/20", 268)`:                                  `"10.12.113.12"`,
		`cidrhost("fd00:fd12:3456:7890:00a2::/72", 34)`:                      `"fd00:fd12:3456:7890::22"`,
		`cidrhost("192.168.1.0/24", -5)`:                                     `"192.168.1.251"`,
		`cidrhost("192.168.1.0/24", -256)`:                                   `"192.168.1.0"`,
		`cidrhost("::/0", -1)`:                                               `"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"`,
		`cidrnetmask("172.16.0.0/12")`:                                       `"255.240.0.0"`,
		`cidrnetmask("0.0.0.0/0")`:                                           `"0.0.0.0"`,
		`cidrsubnet("172.16.0.0/12", 4, 2)`:                                  `"172.18.0.0/16"`,
		`cidrsubnet("10.1.2.0/24", 4, 15)`:                                   `"10.1.2.240/28"`,
		`cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)`:                    `"fd00:fd12:3456:7800:a200::/72"`,
		`cidrsubnet("fd00::/8", 120, 1329227995784915872903807060280344575)`: `"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"`,
		`cidrsubnet("10.0.0.0/8", 0, 0)`:                                     `"10.0.0.0/8"`,
		`cidrsubnets("10.1.0.0/16", 4, 4, 8, 4)`:                             `["10.1.0.0/20","10.1.16.0/20","10.1.32.0/24","10.1.48.0/20"]`,
		`cidrsubnets("fd00:fd12:3456:7890::/56", 16, 16, 16, 32)`:            `["fd00:fd12:3456:7800::/72","fd00:fd12:3456:7800:100::/72","fd00:fd12:3456:7800:200::/72","fd00:fd12:3456:7800:300::/88"]`,
		`cidrsubnets("255.255.255.254/31", 1, 1)`:                            `["255.255.255.254/32","255.255.255.255/32"]`,
		`cidrsubnets("10.0.0.0/8")`:                                          `[]`,
		`[for b in cidrsubnets("10.0.0.0/8", 8, 8) : cidrsubnets(b, 4, 4)]`:  `[["10.0.0.0/20","10.0.16.0/20"],["10.1.0.0/20","10.1.16.0/20"]]`,
		`file("key.txt")`:                                                    `"secret\n"`,
		`trimspace(file("./key.txt"))`:                                       `"secret"`,
		`index(["a", "b", "c"], "b")`:                                        `1`,
		`length("grüß")`:                                                     `4`,
		`length([1, 2])`:                                                     `2`,
		`length({ a = 1 })`:                                                  `1`,
		`length(toset(["a", "a"]))`:                                          `1`,
		`replace("1 + 2 + 3", "+", "-")`:                                     `"1 - 2 - 3"`,
		`replace("hello world", "/w.*d/", "x")`:                              `"hello x"`,
		`reverse([1, 2])`:                                                    `[2,1]`,
		`strrev("ab")`:                                                       `"ba"`,
		`tomap({ a = 1, b = "x" })`:                                          `{"a":"1","b":"x"}`,
		`try(cidrhost("x", 1), "none")`:                                      `"none"`,
		`can(cidrhost("x", 1))`:                                              `false`,
		`lookup({ a = "b" }, "c", "d")`:                                      `"d"`,
		`zipmap(["a"], [1])`:                                                 `{"a":1}`,
		`formatlist("%s.example.net", ["a"])`:                                `["a.example.net"]`,
	} {
		got, diags := evalText(t, base, text)
		if diags.HasErrors() {
			t.Errorf("%s: %v", text, diags)
			continue
		}
		json, err := stdlib.JSONEncode(got)
		if err != nil || json.AsString() != want {
			t.Errorf("%s is %s (%v), want %s", text, json.AsString(), err, want)
		}
	}
	for text, want := range map[string]string{
		`cidrhost("10.0.0.0/30", 4)`:                 "no address 4",
		`cidrhost("10.0.0.0/30", -5)`:                "no address -5",
		`cidrhost("10.0.0.0/30", 1e100)`:             "whole number",
		`cidrhost("10.0.0.0/30", 0.5)`:               "whole number",
		`cidrhost("::ffff:10.0.0.0/104", 1)`:         "not a CIDR",
		`cidrsubnet("10.0.0.0/24", 9, 0)`:            "do not fit",
		`cidrsubnet("10.0.0.0/24", -1, 0)`:           "shorter",
		`cidrsubnet("10.0.0.0/24", 1, 2)`:            "no subnet 2",
		`cidrsubnet("10.0.0.0/24", 1, -1)`:           "no subnet -1",
		`cidrsubnet("::/0", 9223372036854775807, 0)`: "do not fit",
		`cidrsubnets("255.255.255.252/30", 1, 1, 1)`: "no room",
		`cidrsubnets("10.0.0.0/30", 2, 1, 1)`:        "no room",
		`cidrsubnets("10.0.0.0/30", 0)`:              "do not fit",
		`cidrnetmask("fd00::/8")`:                    "only IPv4",
		`file("none.txt")`:                           "no such file",
		`file(".")`:                                  "not a regular file",
		`index(["a"], "b")`:                          "no such element",
		`index("a", "b")`:                            "a list is wanted",
	} {
		if got, diags := evalText(t, base, text); !strings.Contains(diags.Error(), want) {
			t.Errorf("%s is %#v, with %v; want an error with %q", text, got, diags, want)
		}
	}
}

func genPrefix() *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address"))
		if addr.Is4In6() {
			addr = netip.IPv6Unspecified()
		}
		return netip.PrefixFrom(addr, rapid.IntRange(0, addr.BitLen()).Draw(t, "bits"))
	})
}

// TestCIDRProperties checks the arithmetic against what netip says of the
// results.
func TestCIDRProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPrefix().Draw(t, "prefix")
		newBits := rapid.IntRange(0, min(16, p.Addr().BitLen()-p.Bits())).Draw(t, "newbits")
		count := 1 << newBits
		num := rapid.IntRange(0, count-1).Draw(t, "num")
		subnet, err := cidrSubnet(p, newBits, big.NewInt(int64(num)))
		if err != nil || subnet != subnet.Masked() || subnet.Bits() != p.Bits()+newBits || !p.Contains(subnet.Addr()) {
			t.Fatalf("subnet %d of %s is %s (%v)", num, p, subnet, err)
		}
		if num+1 < count {
			next, err := cidrSubnet(p, newBits, big.NewInt(int64(num+1)))
			if err != nil || lastAddr(subnet).Next() != next.Addr() {
				t.Fatalf("behind %s comes %s (%v)", subnet, next, err)
			}
		} else if lastAddr(subnet) != lastAddr(p) {
			t.Fatalf("the last subnet of %s is %s", p, subnet)
		}

		first, err := cidrHost(p, big.NewInt(0))
		if err != nil || first != p.Masked().Addr() {
			t.Fatalf("the first address of %s is %s (%v)", p, first, err)
		}
		last, err := cidrHost(p, big.NewInt(-1))
		if err != nil || last != lastAddr(p) || !p.Contains(last) || p.Contains(last.Next()) {
			t.Fatalf("the last address of %s is %s (%v)", p, last, err)
		}

		bits := rapid.SliceOfN(rapid.IntRange(1, 12), 0, 6).Draw(t, "bits of each")
		subnets, err := cidrSubnets(p, bits)
		if err != nil {
			return // no room, by the table above
		}
		for i, s := range subnets {
			if s != s.Masked() || s.Bits() != p.Bits()+bits[i] || !p.Contains(s.Addr()) {
				t.Fatalf("subnet %d of %s is %s", i, p, s)
			}
			if i > 0 && !lastAddr(subnets[i-1]).Less(s.Addr()) {
				t.Fatalf("%s is not behind %s", s, subnets[i-1])
			}
		}
	})
}

func FuzzCIDRFunctions(f *testing.F) {
	f.Add("10.0.0.0/8", "8", "255")
	f.Add("fd00::/48", "16", "-1")
	f.Add("0.0.0.0/0", "1e9", "1e400")
	f.Fuzz(func(t *testing.T, prefix, a, b string) {
		args := map[string]cty.Value{"p": cty.StringVal(prefix), "a": cty.StringVal(a), "b": cty.StringVal(b)}
		ctx := &hcl.EvalContext{Functions: functions(".", readRegular), Variables: args}
		for _, text := range []string{"cidrsubnet(p, a, b)", "cidrhost(p, a)", "cidrnetmask(p)", "cidrsubnets(p, a, b, a)"} {
			expr, diags := hclsyntax.ParseExpression([]byte(text), "fuzz", hcl.InitialPos)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			val, diags := expr.Value(ctx)
			if diags.HasErrors() || !val.IsWhollyKnown() || val.Type() != cty.String {
				continue
			}
			outer, err := netip.ParsePrefix(prefix)
			if err != nil {
				t.Fatalf("%s of %q is %s", text, prefix, val.AsString())
			}
			got, err := netip.ParsePrefix(val.AsString())
			if err == nil && !outer.Contains(got.Addr()) {
				t.Errorf("%s of %q, %q, %q is %s", text, prefix, a, b, got)
			}
		}
	})
}

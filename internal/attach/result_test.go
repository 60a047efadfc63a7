package attach

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/poldernet/polder/spec"
)

// bridged is what the bridge plugin says with host-local and portmap.
const bridged = `{
  "cniVersion": "1.1.0",
  "interfaces": [
    {"name": "cni0", "mac": "02:00:00:00:00:01"},
    {"name": "vethb6a24aab", "mac": "02:00:00:00:00:02"},
    {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/a"},
    {"name": "cni0.5", "mac": "02:00:00:00:00:04"}
  ],
  "ips": [
    {"interface": 2, "address": "fd00:10:244:1::2/64", "gateway": "fd00:10:244:1::1"},
    {"interface": 2, "address": "10.244.1.2/24", "gateway": "10.244.1.1"},
    {"interface": 0, "address": "10.244.1.1/24"},
    {"address": "10.244.1.2/24"}
  ],
  "dns": {}
}`

func TestParseResult(t *testing.T) {
	got, err := ParseResult([]byte(bridged), "eth0")
	want := Port{"vethb6a24aab", spec.MAC{2, 0, 0, 0, 0, 3}, []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244:1::2")}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseResultRefuses(t *testing.T) {
	for _, test := range []struct{ name, old, new, err string }{
		{"no JSON", `"ips"`, `ips`, "reading prevResult"},
		{"another interface", `"eth0"`, `"net1"`, `no interface "eth0"`},
		{"no sandbox", `, "sandbox": "/run/netns/a"`, ``, `no interface "eth0"`},
		{"a MAC of nobody", `"02:00:00:00:00:03"`, `"03:00:00:00:00:03"`, "of no interface"},
		{"no MAC", `"02:00:00:00:00:03"`, `""`, "the MAC of eth0"},
		{"a name too long", `"vethb6a24aab"`, `"vethb6a24aab-too-long"`, "no name of an interface"},
		{"a group", `10.244.1.2/24`, `224.0.0.1/24`, "224.0.0.1"},
		{"no prefix", `10.244.1.2/24`, `10.244.1.2`, "10.244.1.2"},
	} {
		text := strings.Replace(bridged, test.old, test.new, 1)
		if _, err := ParseResult([]byte(text), "eth0"); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	alone := `{"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/a"}]}`
	if _, err := ParseResult([]byte(alone), "eth0"); err == nil || !strings.Contains(err.Error(), "which of the node's interfaces") {
		t.Error(err)
	}
	noIPs, _, _ := strings.Cut(bridged, `"ips"`)
	if _, err := ParseResult([]byte(noIPs+`"ips": []}`), "eth0"); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Error(err)
	}
}

// FuzzParseResult: whatever others say, what is understood is fit to be claimed.
func FuzzParseResult(f *testing.F) {
	f.Add([]byte(bridged), "eth0")
	f.Add([]byte(`{"interfaces":[{"name":"v"},{"name":"e","mac":"02-00-00-00-00-03","sandbox":"s"}],"ips":[{"address":"fe80::1/64"}]}`), "e")
	f.Fuzz(func(t *testing.T, text []byte, ifName string) {
		p, err := ParseResult(text, ifName)
		if err != nil {
			return
		}
		if p.Interface == "" || len(p.Interface) > 15 || !p.MAC.IsUnicast() || len(p.Addresses) == 0 {
			t.Errorf("%+v", p)
		}
		for i, a := range p.Addresses {
			if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" || i > 0 && !p.Addresses[i-1].Less(a) {
				t.Errorf("%+v", p)
			}
		}
		again, err := Unmarshal(must(List{{ID: ID{"c", ifName}, Port: p}}.Marshal("b")), "b")
		if err != nil || len(again) != 1 || !reflect.DeepEqual(again[0].Port, p) {
			t.Errorf("kept as %+v, %v", again, err)
		}
	})
}

func must(b []byte, err error) []byte {
	if err != nil {
		return nil
	}
	return b
}

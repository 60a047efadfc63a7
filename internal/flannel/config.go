package flannel

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/poldernet/polder/spec"
)

// config is a net-conf.json (pkg/subnet/config.go and pkg/backend in flannel
// v0.28.9).
type config struct {
	enabled   spec.PerFamily[bool]
	pods      spec.PerFamily[pods]
	nftables  *bool
	backend   backend
	forgotten []string // what is in it and says nothing, in words
}

// pods is the pod network of a family. What is not set is flannel's default.
type pods struct {
	cidr     netip.Prefix
	len      int
	min, max netip.Addr
}

// bounds are the names of the members that say which subnets nodes may have.
func (p pods) bounds(f spec.Family) (names []string) {
	if p.len != 0 {
		names = append(names, prefix(f)+"SubnetLen")
	}
	if p.min.IsValid() {
		names = append(names, prefix(f)+"SubnetMin")
	}
	if p.max.IsValid() {
		names = append(names, prefix(f)+"SubnetMax")
	}
	return names
}

// backend is its Backend.
type backend struct {
	typ           string
	omitted       bool // typ is what flannel takes then
	vni           int
	port          int
	mtu           int // of the underlay, 0: that of the interface
	gbp           bool
	learning      bool
	directRouting bool
}

// The types of backends: those that polder has, and the others with what they
// do.
var (
	sameBackends  = []string{string(spec.VXLAN), string(spec.HostGW)}
	otherBackends = map[string]string{
		"udp":         "a process copies each packet",
		"wireguard":   "packets are encrypted",
		"ipsec":       "packets are encrypted",
		"ipip":        "packets travel in IP",
		"alloc":       "nothing carries packets between nodes",
		"extension":   "commands of the user's carry packets",
		"tencent-vpc": "routes of the cloud carry packets",
		"ali-vpc":     "routes of the cloud carry packets",
		"aws-vpc":     "routes of the cloud carry packets",
		"gce":         "routes of the cloud carry packets",
	}
)

// backendFields are the members of Backend by its type, beside Type.
var backendFields = map[string][]string{
	"vxlan":       {"VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting", "Name", "MacPrefix"},
	"host-gw":     {"Name", "DNSServerList"},
	"udp":         {"Port"},
	"wireguard":   {"ListenPort", "ListenPortV6", "MTU", "PSK", "PersistentKeepaliveInterval", "Mode"},
	"ipip":        {"DirectRouting"},
	"ipsec":       {"UDPEncap", "ESPProposal", "PSK"},
	"extension":   {"PreStartupCommand", "PostStartupCommand", "ShutdownCommand", "SubnetAddCommand", "SubnetRemoveCommand"},
	"tencent-vpc": {"AccessKeyID", "AccessKeySecret"},
}

// windowsFields are members that flannel reads on Windows only.
var windowsFields = []string{"Name", "MacPrefix", "DNSServerList"}

// prefix is what is before the name of a family's member of net-conf.json.
func prefix(f spec.Family) string {
	if f == spec.IPv6 {
		return "IPv6"
	}
	return ""
}

// configReader reads a net-conf.json.
type configReader struct {
	part
	config
	whole value
}

// config reads the part as a net-conf.json. It is of use where there are no
// diagnostics.
func (p part) config() config {
	r := configReader{part: p}
	v, ok := p.json()
	if !ok || !r.is(v, object, "The configuration", `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`) {
		return r.config
	}
	r.whole = v
	r.enabled.IPv4 = r.truth(v, "EnableIPv4", true)
	r.enabled.IPv6 = r.truth(v, "EnableIPv6", false)
	if m, ok := v.get("EnableNFTables"); ok && m.kind != null {
		on := r.truth(v, "EnableNFTables", false)
		r.nftables = &on
	}
	known := []string{"EnableIPv4", "EnableIPv6", "EnableNFTables", "Backend"}
	for _, f := range spec.Families {
		for _, name := range []string{"Network", "SubnetLen", "SubnetMin", "SubnetMax"} {
			known = append(known, prefix(f)+name)
		}
		r.family(f)
	}
	if !r.enabled.IPv4 && !r.enabled.IPv6 {
		m, _ := v.get("EnableIPv4")
		r.fail(m.span, "No pod network", "EnableIPv4 and EnableIPv6 are both false. One of them has to be true, or left out: EnableIPv4 is true by default.")
	}
	r.readBackend()
	r.unknown(v, known, "", nil)
	return r.config
}

// family reads what is about the pods of a family.
func (r *configReader) family(f spec.Family) {
	var p pods
	name := prefix(f) + "Network"
	m, there := r.whole.get(name)
	if !r.enabled.Get(f) {
		if there && m.kind != null {
			r.forget(m.at, "%s: Enable%s is not true.", name, familyName(f))
		}
		return
	}
	if !there || m.kind == null {
		r.fail(span{r.whole.from, r.whole.from + 1}, "No pod network", "%s is missing: the address range of all pods. For example: %q: %q", name, name, exampleCIDR(f))
		return
	}
	text, ok := r.text(m.value, name, exampleCIDR(f))
	if !ok {
		return
	}
	cidr, err := netip.ParsePrefix(text)
	if err != nil || spec.FamilyOf(cidr.Addr()) != f || cidr.Addr().Is4In6() {
		r.fail(m.span, "Unsuitable pod network", "%s: %q is no %s CIDR. For example: %q", name, text, familyName(f), exampleCIDR(f))
		return
	}
	if masked := cidr.Masked(); masked != cidr {
		r.forget(m.at, "%s %s has bits behind its prefix length; flannel takes %s.", name, cidr, masked)
		cidr = masked
	}
	if _, err := spec.ParsePodCIDR(cidr.String()); err != nil {
		r.fail(m.span, "Unsuitable pod network", "%s %s is not for pods: %s.", name, cidr, err)
		return
	}
	p.cidr = cidr
	usual, longest := 24, 30
	if f == spec.IPv6 {
		usual, longest = 64, 126
	}
	shortest := cidr.Bits() + 2
	if shortest > longest {
		r.fail(m.span, "Pod network too small", "%s %s has no room for the subnets of four nodes. The longest prefix that does is /%d.", name, cidr, longest-2)
		return
	}
	size := max(usual, shortest)
	name = prefix(f) + "SubnetLen"
	if m, n, ok := r.number(r.whole, name, 0, 128, "24"); ok && n != 0 {
		if n < shortest || n > longest {
			r.fail(m.span, "Unsuitable subnet length", "%s must be from %d to %d: at least four subnets must fit into %s, and four addresses into a subnet.", name, shortest, longest, cidr)
			return
		}
		p.len, size = n, n
	}
	p.min = r.bound(prefix(f)+"SubnetMin", cidr, size)
	p.max = r.bound(prefix(f)+"SubnetMax", cidr, size)
	if p.min.IsValid() && p.max.IsValid() && p.max.Less(p.min) {
		m, _ := r.whole.get(prefix(f) + "SubnetMin")
		r.fail(m.span, "No subnets", "%sSubnetMin %s is after %sSubnetMax %s, which leaves no subnet for a node.", prefix(f), p.min, prefix(f), p.max)
	}
	r.pods.Set(f, p)
}

// bound reads SubnetMin or SubnetMax.
func (r *configReader) bound(name string, cidr netip.Prefix, size int) netip.Addr {
	m, there := r.whole.get(name)
	if !there || m.kind == null {
		return netip.Addr{}
	}
	example := netip.PrefixFrom(cidr.Addr(), size).String()
	text, ok := r.text(m.value, name, strings.Split(example, "/")[0])
	if !ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	switch subnet := netip.PrefixFrom(a, size).Masked(); {
	case err != nil || a.Zone() != "":
		r.fail(m.span, "Unsuitable address", "%s: %q is no address.", name, text)
	case a.IsUnspecified():
		return netip.Addr{} // flannel takes it for none
	case !cidr.Contains(a):
		r.fail(m.span, "Subnet outside the pod network", "%s %s is not in %s.", name, a, cidr)
	case subnet.Addr() != a:
		r.fail(m.span, "Misaligned subnet", "%s must be where a subnet of /%d begins. %s is inside of %s; write %s.", name, size, a, subnet, subnet.Addr())
	default:
		return a
	}
	return netip.Addr{}
}

// readBackend reads Backend. Of a type that polder has not, only that.
func (r *configReader) readBackend() {
	r.backend = backend{typ: "udp", omitted: true}
	m, there := r.whole.get("Backend")
	if !there || m.kind == null {
		return
	}
	b := m.value
	if !r.is(b, object, "Backend", `{"Type": "vxlan"}`) {
		return
	}
	t, there := b.get("Type")
	if !there || t.kind == null {
		r.fail(b.span, "No type of backend", "Backend has no Type, and flannel does not start without one. It is one of %s.", strings.Join(backendNames(), ", "))
		return
	}
	typ, ok := r.text(t.value, "Type", "vxlan")
	if !ok {
		return
	}
	_, other := otherBackends[typ]
	if !other && !slices.Contains(sameBackends, typ) {
		r.fail(t.span, "Unknown backend", "%q is no backend of flannel's. It has %s.", typ, strings.Join(backendNames(), ", "))
		return
	}
	r.backend = backend{typ: typ, vni: 1, port: 8472}
	if typ == string(spec.VXLAN) {
		r.vxlan(b)
	}
	r.unknown(b, append([]string{"Type"}, backendFields[typ]...), "Backend.", windowsFields)
}

func (r *configReader) vxlan(b value) {
	if m, vni, ok := r.number(b, "VNI", 1, 1<<24-1, "1"); ok {
		r.backend.vni = vni
		for _, f := range spec.Families {
			if name := device(f, vni); r.enabled.Get(f) && len(name) > 15 {
				r.fail(m.span, "Unsuitable VNI", "flannel would name its device %s, and Linux takes names of at most 15 bytes.", name)
				break
			}
		}
	}
	if _, port, ok := r.number(b, "Port", 0, 65535, "8472"); ok && port != 0 { // 0 is the kernel's
		r.backend.port = port
	}
	if m, mtu, ok := r.number(b, "MTU", 0, 65535, "1500"); ok && mtu != 0 {
		least := 68
		if r.enabled.IPv6 {
			least = 1280
		}
		if left := mtu - overhead(r.enabled); left < least {
			r.fail(m.span, "Unsuitable MTU", "MTU %d is that of the underlay and leaves %d for pods, who need %d.", mtu, left, least)
		}
		r.backend.mtu = mtu
	}
	r.backend.gbp = r.truth(b, "GBP", false)
	r.backend.learning = r.truth(b, "Learning", false)
	r.backend.directRouting = r.truth(b, "DirectRouting", false)
}

// vxlanOverhead is what flannel takes off the underlay's MTU, in both families.
const vxlanOverhead = 50

// overhead is what VXLAN takes, over IPv6 where there are pods of that family.
func overhead(enabled spec.PerFamily[bool]) int {
	if enabled.IPv6 {
		return 70
	}
	return vxlanOverhead
}

// device is how flannel calls the VTEP over a family's underlay.
func device(f spec.Family, vni int) string {
	if f == spec.IPv6 {
		return "flannel-v6." + strconv.Itoa(vni)
	}
	return "flannel." + strconv.Itoa(vni)
}

// unknown notes the members of an object that are not known, those that
// another one overrules, and those that are for Windows.
func (r *configReader) unknown(v value, known []string, path string, windows []string) {
	fold := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(k string) bool { return strings.EqualFold(k, name) })
	}
	for i, m := range v.members {
		switch {
		case !fold(known, m.name):
			r.forget(m.at, "%s is no field of flannel's, which ignores it.", quoted(path+m.name))
		case fold(windows, m.name):
			r.forget(m.at, "%s%s is for Windows.", path, m.name)
		case slices.ContainsFunc(v.members[i+1:], func(n member) bool { return strings.EqualFold(n.name, m.name) }):
			r.forget(m.at, "%s%s is there again below, which counts.", path, m.name)
		}
	}
}

// forget notes what does not get into the spec.
func (r *configReader) forget(at span, format string, args ...any) {
	r.forgotten = append(r.forgotten, fmt.Sprintf("line %d: ", r.place(at).Start.Line)+fmt.Sprintf(format, args...))
}

// is says that a value is of a kind, or reports it.
func (r *configReader) is(v value, want kind, what, example string) bool {
	if v.kind == want {
		return true
	}
	r.fail(v.span, "Unsuitable value", "%s is %s, and flannel reads %s. For example: %s", what, v.kind, want, example)
	return false
}

func (r *configReader) text(v value, name, example string) (string, bool) {
	return v.text, r.is(v, text, name, strconv.Quote(example))
}

func (r *configReader) truth(in value, name string, def bool) bool {
	m, there := in.get(name)
	if !there || m.kind == null || !r.is(m.value, boolean, name, "true") {
		return def
	}
	return m.truth
}

// number is a whole number from low to high. ok is false where there is none.
func (r *configReader) number(in value, name string, low, high int, example string) (m member, n int, ok bool) {
	m, there := in.get(name)
	if !there || m.kind == null || !r.is(m.value, number, name, example) {
		return m, 0, false
	}
	n, err := strconv.Atoi(m.text)
	if err != nil || n < low || n > high {
		r.fail(m.span, "Unsuitable number", "%s must be a whole number from %d to %d. For example: %s", name, low, high, example)
		return m, 0, false
	}
	return m, n, true
}

func familyName(f spec.Family) string {
	if f == spec.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

func exampleCIDR(f spec.Family) string {
	if f == spec.IPv6 {
		return "fd00:10:244::/48"
	}
	return "10.244.0.0/16"
}

func backendNames() []string {
	names := slices.Clone(sameBackends)
	for name := range otherBackends {
		names = append(names, name)
	}
	slices.Sort(names[len(sameBackends):])
	return names
}

// quoted is a text of somebody's in a comment: it stays in its line.
func quoted(s string) string { return strconv.Quote(s) }

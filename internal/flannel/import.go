package flannel

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// Import reads a net-conf.json or a kube-flannel.yml and writes the spec that it
// comes to, of a cluster with that name. What cannot be in a spec, or is
// otherwise in polder, stands in it as a comment. Nothing is written where the
// diagnostics have errors; they are about places in the named file.
func Import(name string, text []byte, cluster string) ([]byte, hcl.Diagnostics) {
	d := &document{name: name, text: text}
	var found deployment
	switch {
	case !utf8.Valid(text):
		at := 0
		for r, size := utf8.DecodeRune(text); r != utf8.RuneError || size != 1; r, size = utf8.DecodeRune(text[at:]) {
			at += size
		}
		d.fail(d.between(at, at+1), "This is no text", "The file is not in UTF-8.")
	case isConfig(text):
		found.config = d.whole().config()
	default:
		found = d.manifest()
	}
	slices.SortStableFunc(d.diags, func(a, b *hcl.Diagnostic) int { return a.Subject.Start.Byte - b.Subject.Start.Byte })
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	return d.finish(found.draft(name, cluster))
}

// isConfig says that a text is a net-conf.json and no Kubernetes object. What
// begins with a brace and is broken is taken for one.
func isConfig(text []byte) bool {
	if !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return false
	}
	var head struct {
		Kind       string
		APIVersion string
	}
	return json.Unmarshal(text, &head) != nil || head.Kind == "" && head.APIVersion == ""
}

// draft is the spec of what was read.
func (f deployment) draft(name, cluster string) *draft {
	d := &draft{cluster: cluster}
	d.header.add("flannel's network, from %s. Comments that begin with \"dropped\" tell what polder has not, or has otherwise.", quoted(name))
	for _, what := range f.forgotten {
		d.network.drop("%s", what)
	}
	if f.inKubernetes() {
		f.draftKubernetes(d)
	}
	f.podNetwork(d)
	f.draftBackend(d)
	f.draftBridge(d)
	f.draftOptions(d)
	if f.nftables != nil {
		d.natWhy.drop("EnableNFTables: polder's rules are nftables ones in any case, in tables of their own. flannel's stay behind; docs/flannel.md tells how to remove them.")
	}
	if !f.inKubernetes() {
		d.footer.add("%s", howNodes(d))
	}
	return d
}

// draftKubernetes takes the nodes from where flannel has them.
func (f deployment) draftKubernetes(d *draft) {
	d.inCluster()
	switch _, other := otherBackends[f.backend.typ]; {
	case other: // of which polder has not the words
	case f.options != nil && f.options.annotations != "":
		d.network.add("Without compat = \"flannel\" nodes of polder's and of flannel's do not reach each other.")
	default:
		d.share()
	}
}

// inCluster has the nodes be those of Kubernetes.
func (d *draft) inCluster() {
	d.kubernetes.add("Nodes are those of the API server, each with the subnets in its podCIDRs. Without a kubeconfig here, the daemon runs in a pod: see docs/kubernetes-deploy.md.")
}

// share has them speak flannel's words.
func (d *draft) share() {
	d.compat = spec.CompatFlannel
	d.network.add("With compat, nodes that run polder and nodes that run flannel find each other by flannel's annotations.")
}

func (f deployment) podNetwork(d *draft) {
	var idle []string
	for _, family := range spec.Families {
		p := f.pods.Get(family)
		if !p.cidr.IsValid() {
			continue
		}
		d.cidrs = append(d.cidrs, p.cidr.String())
		if f.inKubernetes() {
			idle = append(idle, p.bounds(family)...)
			continue
		}
		d.lens.Set(family, p.len)
		if p.min.IsValid() {
			d.min = append(d.min, p.min.String())
		}
		if p.max.IsValid() {
			d.max = append(d.max, p.max.String())
		}
	}
	if len(idle) > 0 {
		d.network.drop("%s: a node's subnet is its podCIDR, with flannel, too.", strings.Join(idle, ", "))
	}
}

func (f deployment) draftBackend(d *draft) {
	b := f.backend
	if why, other := otherBackends[b.typ]; other {
		d.backend = spec.Backend{Type: spec.VXLAN, VNI: 1, Port: 8472}
		if b.omitted {
			d.backendWhy.drop("Backend is left out, which means \"udp\" to flannel: %s.", why)
		} else {
			d.backendWhy.drop("the backend %q: %s.", b.typ, why)
		}
		d.backendWhy.add("polder has \"vxlan\" and \"host-gw\", and \"vxlan\" is proposed. It does not talk to flannel's %q: pods on different nodes reach each other again when all nodes are switched.", b.typ)
		return
	}
	d.backend = spec.Backend{Type: spec.BackendType(b.typ), VNI: uint32(b.vni), Port: uint16(b.port), DirectRouting: b.directRouting}
	if d.backend.Type != spec.VXLAN {
		return
	}
	for _, family := range spec.Families {
		if f.enabled.Get(family) && d.compat == "" {
			d.backend.Device.Set(family, device(family, b.vni))
		}
	}
	if b.mtu != 0 {
		taken := overhead(f.enabled)
		d.mtu = b.mtu - taken
		d.network.add("flannel's MTU %d is that of the underlay; this one is that of pods, %d bytes less.", b.mtu, taken)
	}
	if f.enabled.IPv6 {
		d.network.add("flannel gives pods 50 bytes less than the underlay has, and VXLAN over IPv6 takes 70. `polder migrate check` says which MTU the bridge has to get.")
	}
	if b.gbp {
		d.backendWhy.drop("GBP. polder's VTEPs have no group policy, and it does not take over one that has: the VTEP is made anew.")
	}
	if b.learning {
		d.backendWhy.drop("Learning. polder's VTEPs have static entries, and it does not take over one that learns: the VTEP is made anew.")
	}
}

func (f deployment) draftBridge(d *draft) {
	c := f.cni
	if c == nil {
		return
	}
	d.bridge = &spec.Bridge{Name: "cni0", HairpinMode: c.hairpin}
	if c.bridge != "" {
		d.bridge.Name = c.bridge
	}
	if len(c.dropped) > 0 {
		d.bridgeWhy.drop("of the delegate in cni-conf.json: %s.", strings.Join(c.dropped, ", "))
	}
	if len(c.others) > 0 {
		d.bridgeWhy.drop("of the plugins in cni-conf.json: %s.", strings.Join(c.others, ", "))
	}
	d.bridgeWhy.add("In the place of cni-conf.json the daemon writes a list of plugins of its own: see docs/cni.md.")
	if c.name != "" && c.name != usualName {
		d.bridgeWhy.add("flannel's list is of the network %s: start the daemon with --cni-name %s. By that name host-local knows which addresses pods have, and under another one it gives them away again.", quoted(c.name), quoted(c.name))
	}
}

// usualName is that of the network in kube-flannel.yml, and in a list of polder's
// without --cni-name.
const usualName = "cbr0"

func (f deployment) draftOptions(d *draft) {
	o := f.options
	switch {
	case o == nil:
		d.masquerade = &spec.Masquerade{RandomFully: true}
		d.natWhy.add("The configuration does not say whether flannel masquerades: its option --ip-masq does, which kube-flannel.yml and k3s have. Remove this block where it runs without.")
		return
	case o.elsewhere:
		d.masquerade = &spec.Masquerade{RandomFully: true}
		d.natWhy.drop("flanneld's options, which stand in a shell's command line. Remove this block where --ip-masq is not among them.")
		return
	}
	if o.masquerade {
		d.masquerade = &spec.Masquerade{RandomFully: !o.notRandom}
	} else {
		d.natWhy.add("flannel runs without --ip-masq: pods reach the outside with their own addresses.")
	}
	if o.noForward {
		d.natWhy.add("--iptables-forward-rules=false: polder accepts nothing in FORWARD either.")
	} else {
		d.natWhy.drop("the accept in FORWARD, which is in flannel's rules. polder has none; `polder status` says whether anything drops pod traffic.")
	}
	f.draftUnderlay(d)
	if len(o.publicIPs) > 0 {
		where := "in its `addresses`"
		if f.inKubernetes() {
			where = "the InternalIP of its Node; with compat, the annotation node-public-ip or node-public-ipv6 chooses another"
		}
		d.network.drop("--public-ip %s: each node's own, %s.", quotedList(o.publicIPs), where)
	}
	if o.blackhole {
		d.network.drop("--ip-blackhole-route: polder makes no such route.")
	}
	if o.annotations != "" {
		d.network.drop("--kube-annotation-prefix: polder knows flannel's annotations by their default prefix only.")
	}
	if len(o.secret) > 0 {
		d.network.drop("%s: the value comes from elsewhere.", strings.Join(o.secret, ", "))
	}
	if len(o.idle) > 0 {
		slices.Sort(o.idle)
		d.network.drop("%s: about how flanneld runs.", strings.Join(slices.Compact(o.idle), ", "))
	}
	if len(f.others) > 0 {
		d.network.drop("the containers %s beside flanneld. polder enforces NetworkPolicies itself: those of the cluster where the spec has a block `kubernetes`.", quotedList(f.others))
	}
}

// draftUnderlay finds the interface as flannel does: by name first, by what can
// be reached last. It takes the first that there is; a spec names one.
func (f deployment) draftUnderlay(d *draft) {
	o := f.options
	var chosen string
	for _, name := range o.interfaces {
		_, err := netip.ParseAddr(name)
		switch {
		case err == nil || strings.Contains(name, "$("):
			d.network.drop("--iface %s: a node's address. Without `underlay` a node uses the interface that holds its address.", quoted(name))
		case chosen != "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n"):
			d.network.drop("--iface %s: of a node that has not %s. Give its block an `underlay`.", quoted(name), quoted(chosen))
		default:
			chosen = name
			d.underlay = "interface = " + quoteHCL(name)
		}
	}
	for _, expression := range o.regexes {
		d.network.drop("--iface-regex %s: a spec names the interface, in `underlay` of the network or of a node. Without, it is the one that holds the node's address.", quoted(expression))
	}
	if o.canReach == "" {
		return
	}
	a, err := netip.ParseAddr(o.canReach)
	if err != nil || d.underlay != "" || len(o.regexes) > 0 {
		d.network.drop("--iface-can-reach %s: flannel comes to it last.", quoted(o.canReach))
		return
	}
	d.underlay = "route_to = " + quoteHCL(a.String())
}

// howNodes tells how the file gets its nodes.
func howNodes(d *draft) string {
	var addresses, subnets, devices []string
	var macs spec.PerFamily[string]
	for _, cidr := range d.cidrs {
		address, subnet, f := "192.0.2.11/24", "10.244.1.0/24", spec.IPv4
		if strings.Contains(cidr, ":") {
			address, subnet, f = "2001:db8::11/64", "fd00:10:244:1::/64", spec.IPv6
		}
		addresses, subnets = append(addresses, address), append(subnets, subnet)
		if name := d.backend.Device.Get(f); name != "" {
			macs.Set(f, "…")
			devices = append(devices, "/sys/class/net/"+name+"/address")
		}
	}
	lines := []string{
		"Nodes are not in flannel's configuration. Each needs a block such as this, with its hostname, flannel's public IP, and the base of FLANNEL_SUBNET in /run/flannel/subnet.env:",
		"   node \"n1\" {",
		"     addresses = " + listHCL(addresses),
		"     subnets   = " + listHCL(subnets),
	}
	if len(devices) > 0 {
		lines = append(lines, "     "+familiesHCL("vtep_mac ", macs, quoteHCL), "   }",
			"The MAC is in "+strings.Join(devices, " and in ")+".")
	} else {
		lines = append(lines, "   }")
	}
	return strings.Join(append(lines, "`polder import flannel` without a file, on a node, writes its block and those of the nodes it knows."), "\n")
}

func quotedList(list []string) string {
	var all []string
	for _, s := range list {
		all = append(all, quoted(s))
	}
	return strings.Join(all, ", ")
}

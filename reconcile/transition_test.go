package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
)

// TestTheKernelFollows: the spec changes, the kernel is damaged, writes fail,
// dumps are torn, notifications are lost, others commit in between, the daemon
// is killed and started again, in any order. When that is over, the kernel is
// as an apply from scratch would make it, what is foreign is as others left it,
// and the daemon rests.
func TestTheKernelFollows(t *testing.T) {
	specs := specCache{dir: t.TempDir(), known: map[string]*loaded{}}
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		inBubble(t, func() {
			m := newTransitions(rt, &specs, dir)
			defer m.end()
			m.run(DaemonOptions{})
			for range rapid.IntRange(1, 25).Draw(rt, "steps") {
				m.step()
			}
			m.converge()
		})
	})
}

// inBubble runs something in a bubble of its own time. What ends it with a
// panic, as rapid does a failed test, ends the caller.
func inBubble(t *testing.T, do func()) {
	var failure any
	synctest.Test(t, func(*testing.T) {
		defer func() { failure = recover() }()
		do()
	})
	if failure != nil {
		panic(failure)
	}
}

// specCache parses each text once.
type specCache struct {
	dir   string
	known map[string]*loaded
}

func (c *specCache) parse(t rapid.TB, text string) *loaded {
	if l := c.known[text]; l != nil {
		return l
	}
	file := filepath.Join(c.dir, "polder.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.known[text] = Source{Path: file}.load("n1")
	return c.known[text]
}

// transitions is a host to which things happen.
type transitions struct {
	*fakeHost
	rt    *rapid.T
	specs *specCache
	good  *loaded // the latest without errors
	did   []string
	n     int // draws
	// released says that ports of workloads were given away at some time: they
	// stay what they were then.
	released bool
	// What others have put onto the host.
	addresses []netip.Prefix // of eth0
	plugged   []string
}

var (
	families = []string{"4", "6", "46"}
	backends = []string{
		`backend "vxlan" {}`, "backend \"vxlan\" {\n    vni = 7\n  }",
		"backend \"vxlan\" {\n    direct_routing = true\n  }", `backend "host-gw" {}`,
	}
	bridges     = []string{"", "bridge {\n    name = \"br9\"\n  }"}
	masquerades = []string{"", "masquerade {}"}
	mtus        = []string{"", "mtu = 1300"}
)

func newTransitions(rt *rapid.T, specs *specCache, dir string) *transitions {
	m := &transitions{rt: rt, specs: specs, addresses: slices.Clone(ownAddresses), plugged: slices.Clone(workloads)}
	m.good = specs.parse(rt, m.drawSpec())
	if m.good.err != nil {
		rt.Fatal(m.good.err)
	}
	k := newFakeKernel(ownAddresses...)
	k.refusal = errRefused
	m.fakeHost = fakeHostOf(rt, k, m.good, dir)
	for _, link := range workloads {
		k.network.Plug(link)
	}
	m.foreign()
	return m
}

// foreign puts onto the host what others have there.
func (m *transitions) foreign() { putForeign(m.rt, m.fakeKernel) }

func putForeign(t rapid.TB, k *fakeKernel) {
	k.do(func() {
		k.rules.Put("kubelet", foreignTable)
		if err := k.network.AddRoute(foreignRoute); err != nil && !errors.Is(err, syscall.EEXIST) {
			t.Fatal(err)
		}
	})
}

var (
	ownAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24"), netip.MustParsePrefix("2001:db8::11/64")}
	workloads    = []string{"veth1", "veth2"}
	foreignRoute = overlay.RouteEntry{
		RouteKey: overlay.RouteKey{Dst: netip.MustParsePrefix("203.0.113.0/24")},
		Route:    overlay.Route{Gateway: netip.MustParseAddr("192.0.2.1"), Link: "eth0", Protocol: 4}, // RTPROT_STATIC
	}
	foreignTable = nft.Table{Family: nft.INet, Name: "kube", Chains: []nft.Chain{{Name: "services"}}}
)

// label numbers the draws: two of one name are hard to tell apart.
func (m *transitions) label(what string) string {
	m.n++
	return fmt.Sprint(m.n, " ", what)
}

func sample[T any](m *transitions, what string, list []T) T {
	return rapid.SampledFrom(list).Draw(m.rt, m.label(what))
}

func (m *transitions) number(what string, from, to int) int {
	return rapid.IntRange(from, to).Draw(m.rt, m.label(what))
}

// drawSpec writes a spec of n1 and some others.
func (m *transitions) drawSpec() string {
	pods := sample(m, "pods", families)
	list := func(v4, v6 string) string {
		var quoted []string
		if strings.Contains(pods, "4") {
			quoted = append(quoted, fmt.Sprintf("%q", v4))
		}
		if strings.Contains(pods, "6") {
			quoted = append(quoted, fmt.Sprintf("%q", v6))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "cluster = \"fake\"\nnetwork {\n  pod_cidrs = %s\n", list("10.244.0.0/16", "fd00:10:244::/48"))
	for _, part := range [][]string{backends, bridges, masquerades, mtus} {
		fmt.Fprintf(&b, "  %s\n", sample(m, "part", part))
	}
	b.WriteString("}\n")
	first := m.number("first subnet", 1, 3)
	for i := 1; i <= 5; i++ {
		if i == 1 || m.number("node", 0, 1) == 1 {
			fmt.Fprintf(&b, "node \"n%d\" {\n  addresses = %s\n  subnets = %s\n}\n", i,
				list(fmt.Sprintf("192.0.2.%d/24", 10+i), fmt.Sprintf("2001:db8::%d/64", 10+i)),
				list(fmt.Sprintf("10.244.%d.0/24", first+i), fmt.Sprintf("fd00:10:244:%d::/64", first+i)))
		}
	}
	for i, link := range workloads {
		if m.number("endpoint", 0, 1) == 1 {
			fmt.Fprintf(&b, "endpoint \"w%d\" {\n  node = \"n1\"\n  interface = %q\n  addresses = %s\n}\n", i, link,
				list(fmt.Sprintf("10.244.%d.%d", first+1, 5+i), fmt.Sprintf("fd00:10:244:%d::%d", first+1, 5+i)))
		}
	}
	return b.String()
}

// note keeps what happened for the message of a failure.
func (m *transitions) note(format string, args ...any) {
	m.did = append(m.did, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (m *transitions) fatal(format string, args ...any) {
	m.rt.Helper()
	m.rt.Fatalf("%s\nafter\n%s\nwith the spec\n%s\nthe daemon told\n%s", fmt.Sprintf(format, args...), strings.Join(m.did, "\n"), m.text(), m.story(0))
}

func (m *transitions) text() string {
	for text, l := range m.specs.known {
		if l == m.good {
			return text
		}
	}
	return ""
}

// step lets one thing happen. Often the next one comes before the daemon is
// done with it.
func (m *transitions) step() {
	steps := []func(){
		m.changeSpec, m.breakSpec, m.damageNetwork, m.damageNetwork, m.damageRules, m.changeForeign,
		m.refuseWrites, m.tearDumps, m.overflow, m.cutOff, m.raceCommit, m.kill, m.restart, m.converge, m.byCommand,
	}
	steps[m.number("step", 0, len(steps)-1)]()
	wait := sample(m, "wait", []time.Duration{0, 500 * time.Microsecond, 5 * time.Millisecond, 100 * time.Millisecond, 3 * time.Second})
	m.pass(wait)
	m.revive()
}

func (m *transitions) changeSpec() {
	m.good = m.specs.parse(m.rt, m.drawSpec())
	if m.good.err != nil {
		m.rt.Fatal(m.good.err)
	}
	m.note("the spec changes")
	m.source.write(m.good)
}

func (m *transitions) breakSpec() {
	m.note("the spec breaks")
	m.source.write(m.specs.parse(m.rt, "network {"))
}

func (m *transitions) damageNetwork() {
	m.do(func() {
		if list := m.network.Damages("eth0"); len(list) > 0 {
			d := sample(m, "damage", list)
			m.note("%s", d.Command)
			m.network.Do(d)
		}
	})
}

func (m *transitions) damageRules() {
	m.do(func() {
		if list := m.rules.Damages(tables[0]); len(list) > 0 {
			d := sample(m, "damage", list)
			m.note("nft %s", d.Script)
			if err := m.rules.Do("nft", d); err != nil {
				m.rt.Fatal(err)
			}
		}
	})
}

// changeForeign changes what is nobody's business of polder's, or what it
// stands on.
func (m *transitions) changeForeign() {
	own := sample(m, "own address", ownAddresses)
	other := netip.MustParsePrefix("198.51.100.7/32")
	link := sample(m, "workload", workloads)
	changes := map[string]func(){
		"ip link set eth0 down": func() { m.network.SetUp("eth0", false) },
		"ip link set eth0 up":   func() { m.network.SetUp("eth0", true) },
		"ip addr del own":       func() { m.network.DropAddress("eth0", own) },
		"ip addr replace own":   func() { m.holds("eth0", own) },
		"ip addr replace other": func() {
			m.holds("eth0", other)
			if !slices.Contains(m.addresses, other) {
				m.addresses = append(m.addresses, other)
			}
		},
		"ip link del workload": func() {
			m.network.Unplug(link)
			m.plugged = slices.DeleteFunc(m.plugged, func(l string) bool { return l == link })
		},
		"nft other": func() { m.rules.Put("kubelet", foreignTable) },
	}
	name := sample(m, "change", slices.Sorted(maps.Keys(changes)))
	m.note("%s", name)
	m.do(changes[name])
}

// holds gives a link an address, if it has not got it.
func (m *transitions) holds(link string, a netip.Prefix) {
	if l := m.network.Read(overlay.Scope{}).Facts.Links[link]; !slices.Contains(l.Addresses, a) {
		if err := m.network.AddAddress(link, a); err != nil {
			m.rt.Fatal(err)
		}
	}
}

// byCommand destroys, applies, or gives everything away and takes it back. What
// has been given away is foreign, and would be in the way of another spec: so
// nothing comes between.
func (m *transitions) byCommand() {
	m.do(func() { m.fuse = -1 }) // a killed daemon answers nobody
	mode := sample(m, "mode", []Mode{ModeDestroy, ModeRelease, ModeApply})
	if mode == ModeRelease {
		m.converge()
		m.released = true
		m.request(mode)
		mode = ModeApply
	}
	m.request(mode)
}

func (m *transitions) request(mode Mode) {
	m.note("%s by command", mode)
	plan, err := m.Daemon.Plan(context.Background(), mode)
	if err == nil {
		_, err = m.Apply(context.Background(), mode, plan.ID(), func(Outcome) {})
	}
	if err != nil {
		m.note("which failed: %v", err)
	}
}

// calm ends what goes wrong.
func (m *transitions) calm() {
	m.note("nothing goes wrong any more")
	m.do(func() {
		clear(m.refused)
		m.torn, m.unopened, m.before, m.fuse = 0, 0, nil, -1
		m.network.SetUp("eth0", true)
		for _, a := range ownAddresses {
			m.holds("eth0", a)
		}
	})
	m.foreign() // its route went with the link
	m.source.write(m.good)
}

// converge lets the daemon come to rest, and looks at what it came to.
func (m *transitions) converge() {
	m.calm()
	if m.Condition().Held != "" {
		m.request(ModeApply)
	}
	before := m.rounds()
	m.pass(2*retryMost + 5*time.Second)
	if n := m.rounds() - before; n > mostRounds {
		m.fatal("the daemon made %d rounds before it rested", n)
	}
	if c := m.Condition(); !c.InSync || len(c.Failures) > 0 {
		m.fatal("the daemon says %q: failures %+v, conflicts %+v", c, c.Failures, c.Conflicts)
	}
	if rest := m.fakeHost.plan(); !rest.Empty() {
		m.fatal("the daemon says that it is in sync, and a plan has %v", rest.Changes)
	}
	if got, want := m.state(m.fakeKernel), m.fromScratch(); got != want {
		m.fatal("the kernel is at\n%s\nand an apply from scratch makes it\n%s", got, want)
	}
	before = m.rounds()
	m.pass(checkEvery / 2)
	if n := m.rounds() - before; n > 1 { // the check
		m.fatal("nothing happens, and the daemon made %d rounds", n)
	}
}

// mostRounds is how many it may take to come to rest: for each class of what
// was lost, for what is refused, for what follows.
const mostRounds = 12

// fromScratch is what an apply makes of a host that never had a polder.
func (m *transitions) fromScratch() string {
	k := newFakeKernel()
	for _, link := range m.plugged {
		k.network.Plug(link)
	}
	for _, a := range m.addresses {
		if err := k.network.AddAddress("eth0", a); err != nil {
			m.rt.Fatal(err)
		}
	}
	putForeign(m.rt, k)
	dir, err := os.MkdirTemp(m.dir, "scratch")
	if err != nil {
		m.rt.Fatal(err)
	}
	a := &Applier{
		Planner: &Planner{options: Options{Spec: m.good.config.Spec, Node: "n1", StateDir: dir}, network: fakeNetwork{k}, ruleset: fakeRuleset{k}},
		network: fakeNetwork{k}, ruleset: fakeRuleset{k},
	}
	plan, err := a.Plan(context.Background(), ModeApply)
	if err != nil {
		m.fatal("from scratch: %v", err)
	}
	result, err := a.Apply(context.Background(), plan, func(Outcome) {})
	if err != nil || len(result.Remaining) > 0 {
		m.fatal("from scratch: %v, failed %v, remaining %v", err, result.Failed(), result.Remaining)
	}
	return m.state(k)
}

// state is all that a kernel holds, as text, but for the values of sysctls: of
// those that the spec wants a plan tells, and the others are other people's.
func (m *transitions) state(k *fakeKernel) string {
	s := k.network.State()
	s.Sysctls = nil
	for _, link := range workloads {
		if m.released {
			delete(s.Ports, link)
		}
	}
	rules, _ := k.rules.Read(slices.Concat(tables, []nft.TableID{foreignTable.ID()})...)
	return s.String() + rules.String()
}

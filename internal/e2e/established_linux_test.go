package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// The ports of servers that the changes are about, and of those that they
// leave alone. A service's own port is another one.
const (
	firstPort   = 10_000
	siblings    = 1_000
	servicePort = 20_000
	roundPorts  = 100 // of one change
)

func ports(first int) string {
	return fmt.Sprintf(`["%d-%d/tcp", "%[1]d-%[2]d/udp"]`, first, first+siblings-1)
}

// routes are the ways from pod p11 on n1 to a server.
var routes = []route{
	{name: "same node, bridge", server: "p12", node: "n1"},
	{name: "direct routing", server: "p21", node: "n2"},
	{name: "VXLAN", server: "p31", node: "n3"},
	{name: "service, same node", server: "p12", node: "n1", service: 12},
	{name: "service, VXLAN", server: "p31", node: "n3", service: 31},
	{name: "masquerade, host endpoint", server: "n2", node: "n2", masqueraded: true},
	{name: "masquerade, outside", server: "outside", masqueraded: true, open: true},
	{name: "its own node", server: "n1", node: "n1", open: true},
}

// route is a way to a server.
type route struct {
	name        string
	server      string // a machine
	node        string // that judges ingress
	service     byte   // the end of the address that another program's table translates; 0: none
	masqueraded bool
	open        bool // nothing judges the server's ingress
}

// address is the server's own.
func (r route) address(n *network, f spec.Family) netip.Addr {
	switch {
	case r.server == "outside":
		return outside(f)
	case n.spec.Node(r.server) != nil:
		a, _ := n.spec.Node(r.server).Address(f)
		return a.Addr
	}
	return address(n.endpoint(r.server), f)
}

// dialed is what the client dials to come to the server's port.
func (r route) dialed(n *network, f spec.Family, port int) netip.AddrPort {
	a := r.address(n, f)
	if r.service != 0 {
		port += servicePort
		a = serviceAddress(f, r.service)
	}
	return netip.AddrPortFrom(a, uint16(port))
}

func serviceAddress(f spec.Family, end byte) netip.Addr {
	if f == spec.IPv4 {
		return netip.AddrFrom4([4]byte{10, 96, 0, end})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 5: 0x96, 15: end})
}

// source is the client's address, as the server sees it.
func (r route) source(n *network, f spec.Family) netip.Addr {
	if r.masqueraded {
		a, _ := n.spec.Node("n1").Address(f)
		return a.Addr
	}
	return address(n.endpoint("p11"), f)
}

// base are policies for the client's egress, the servers' ingress, and the
// ingress of n2's own end. Each direction is isolated by a policy that allows the
// siblings, and is opened for the rest by another, which can go. Nothing judges
// what a server would open to the client.
var base = fmt.Sprintf(`
host_endpoint "edge" {
  node      = "n2"
  interface = "eth0"
  labels    = { role = "edge" }
}
policy "client" {
  selector = "pod == 'p11'"
  egress {
    action = "allow"
    ports  = %[1]s
  }
}
policy "server" {
  selector = "pod in {'p12', 'p21', 'p31'}"
  ingress {
    action = "allow"
    ports  = %[1]s
    from { selector = "pod == 'p11'" }
  }
}
policy "edge" {
  host_selector = "role == 'edge'"
  ingress {
    action = "allow"
    ports  = %[1]s
  }
}
`, ports(firstPort+siblings))

var allowing = map[spec.Direction]string{
	spec.Egress: fmt.Sprintf(`
policy "client-opens" {
  selector = "pod == 'p11'"
  egress {
    action = "allow"
    ports  = %s
  }
}
`, ports(firstPort)),
	spec.Ingress: fmt.Sprintf(`
policy "server-opens" {
  selector = "pod in {'p12', 'p21', 'p31'}"
  ingress {
    action = "allow"
    ports  = %[1]s
    from { selector = "pod == 'p11'" }
  }
}
policy "edge-opens" {
  host_selector = "role == 'edge'"
  ingress {
    action = "allow"
    ports  = %[1]s
  }
}
`, ports(firstPort)),
}

// tightenings are what users do to policies so that open connections are to
// stop.
var tightenings = []struct {
	name      string
	direction spec.Direction // whose judgement it changes
	policies  string         // afterwards
}{
	{"deny added on ingress", spec.Ingress, allowing[spec.Egress] + allowing[spec.Ingress] + fmt.Sprintf(`
policy "closed" {
  order         = 1
  selector      = "pod in {'p12', 'p21', 'p31'}"
  host_selector = "role == 'edge'"
  ingress {
    action = "deny"
    ports  = %s
  }
}
`, ports(firstPort))},
	{"deny added on egress", spec.Egress, allowing[spec.Egress] + allowing[spec.Ingress] + fmt.Sprintf(`
policy "closed" {
  order    = 1
  selector = "pod == 'p11'"
  egress {
    action = "deny"
    ports  = %s
  }
}
`, ports(firstPort))},
	{"allowing policy of ingress deleted", spec.Ingress, allowing[spec.Egress]},
	{"allowing policy of egress deleted", spec.Egress, allowing[spec.Ingress]},
}

// TestEstablished: connections of which one side speaks all the time, by every
// way, are no longer allowed by a policy. With `established = "recheck"` nothing
// of them arrives from then on, whoever speaks, while conntrack knows them, and
// of TCP also when it does not; with "keep" they go on. In either case no new
// connection comes in, and connections beside them that are still allowed go on.
func TestEstablished(t *testing.T) {
	for _, mode := range []spec.Established{spec.Recheck, spec.Keep} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			e := newEstablished(t, mode)
			for i, a := range tightenings {
				before := e.text(allowing[spec.Egress] + allowing[spec.Ingress])
				e.change(before)
				cells := e.open(a.direction, i*roundPorts)
				stop := talk(cells)
				edit := e.change(e.text(a.policies))
				stop()
				e.judge(a.name, cells, edit)
				for _, c := range cells {
					c.close()
					c.sibling.close()
				}
			}
			if mode == spec.Recheck {
				e.table.Flush()
				t.Log("from the edit of the file to the last packet that passed:\n" + e.report.String())
			}
		})
	}
}

// established is a lab in which connections are open while policies change.
type established struct {
	*network
	mode    spec.Established
	cluster cluster
	daemons []*daemon
	report  *strings.Builder
	table   *tabwriter.Writer
}

func newEstablished(t *testing.T, mode spec.Established) *established {
	e := &established{mode: mode, cluster: cluster{backend: backendDirect, pods: dual}, report: &strings.Builder{}}
	e.table = tabwriter.NewWriter(e.report, 0, 0, 2, ' ', 0)
	fmt.Fprintln(e.table, "change\tway\tconnections\tlast packet\trules written")
	e.network = up(t, e.cluster)
	e.spec = load(t, e.text(""))
	for _, node := range nodeNames {
		e.daemons = append(e.daemons, e.run(node, e.text("")))
	}
	e.settled()
	if err := e.lab.SyncPodMTU(); err != nil {
		t.Fatal(err)
	}
	e.services()
	for _, name := range e.lab.Names() {
		e.count(name)
	}
	return e
}

// text is the spec with some policies more.
func (e *established) text(policies string) string {
	c := e.cluster
	c.more = fmt.Sprintf("enforcement {\n  established = %q\n}\n", e.mode) + base + policies
	text, _ := c.text()
	return text
}

// edit is an edit of the spec's files.
type edit struct {
	began   time.Time
	written map[string]time.Time // by node: when the daemon had written rules
	settled time.Time            // it is in force everywhere
}

// change edits the file of every node and waits until it is in force.
func (e *established) change(text string) edit {
	e.t.Helper()
	e.spec = load(e.t, text)
	made := edit{written: map[string]time.Time{}}
	marks := make([]uint64, len(e.daemons))
	for i, d := range e.daemons {
		marks[i] = d.Journal().Last()
	}
	made.began = time.Now()
	for _, d := range e.daemons {
		d.write(text)
	}
	e.settled()
	made.settled = time.Now()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for i, d := range e.daemons {
		for v := range d.Journal().After(ended, marks[i]) {
			if v.Type == reconcile.EventChanged {
				made.written[d.node] = v.Time
				break
			}
		}
	}
	return made
}

func (e *established) settled() {
	e.t.Helper()
	for _, d := range e.daemons {
		d.settle("an edit")
	}
}

// services has another program's table translate the addresses and ports of
// services on n1.
func (e *established) services() {
	e.t.Helper()
	var ports []string
	for i := range len(tightenings) * roundPorts {
		for _, p := range []int{firstPort + i, firstPort + siblings + i} {
			ports = append(ports, fmt.Sprintf("%d : %d", p+servicePort, p))
		}
	}
	var b strings.Builder
	for _, f := range dual {
		family := map[spec.Family]string{spec.IPv4: "ip", spec.IPv6: "ip6"}[f]
		fmt.Fprintf(&b, "table %s services {\nmap ports {\ntype inet_service : inet_service; elements = { %s }\n}\n", family, strings.Join(ports, ", "))
		b.WriteString("chain prerouting {\ntype nat hook prerouting priority dstnat;\n")
		for _, r := range routes {
			if r.service == 0 {
				continue
			}
			for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
				fmt.Fprintf(&b, "%s daddr %s meta l4proto %s dnat to %s : %[3]s dport map @ports\n", family, serviceAddress(f, r.service), protocol, r.address(e.network, f))
			}
		}
		b.WriteString("}\n}\n")
	}
	e.sh("n1", "nft -f - <<'end'\n"+b.String()+"end")
}

// cell is one connection that is to stop, and one beside it that is not.
type cell struct {
	*conversation
	sibling  *conversation
	route    route
	protocol lab.Protocol
	family   spec.Family
	speaker  string // who speaks all the time, and next
	port     int    // the server's
}

// from is who speaks, and to who hears that.
func (c *cell) from() *end { return c.side(c.speaker) }
func (c *cell) to() *end   { return c.side(other(c.speaker)) }

func (c *cell) side(name string) *end {
	if name == "client" {
		return c.client
	}
	return c.server
}

func other(side string) string {
	if side == "client" {
		return "server"
	}
	return "client"
}

// open opens the connections that a change of a direction is about.
func (e *established) open(d spec.Direction, first int) []*cell {
	e.t.Helper()
	var cells []*cell
	for _, r := range routes {
		if r.open && d == spec.Ingress {
			continue
		}
		for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
			for _, f := range dual {
				for _, speaker := range []string{"client", "server"} {
					c := &cell{route: r, protocol: protocol, family: f, speaker: speaker, port: firstPort + first + len(cells)}
					name := fmt.Sprintf("%s, %s over %s, the %s speaks", r.name, protocol, f, speaker)
					c.conversation = e.converse(c, name, c.port)
					c.sibling = e.converse(c, "the sibling of "+name, c.port+siblings)
					cells = append(cells, c)
				}
			}
		}
	}
	return cells
}

func (e *established) converse(c *cell, name string, port int) *conversation {
	e.t.Helper()
	at := netip.AddrPortFrom(c.route.address(e.network, c.family), uint16(port))
	v := converse(e.t, name, c.protocol, e.lab.Pod("p11"), e.lab.Machine(c.route.server), c.route.dialed(e.network, c.family, port), at)
	if want := c.route.source(e.network, c.family); v.source != want {
		e.t.Fatalf("%s: the server hears %s and not %s", name, v.source, want)
	}
	return v
}

// pace is how often everybody who speaks all the time speaks.
const pace = 5 * time.Millisecond

// talk has the speakers speak, and of the siblings both sides, until it is
// stopped.
func talk(cells []*cell) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		clock := time.NewTicker(pace)
		defer clock.Stop()
		for i := 0; ; i++ {
			for k, c := range cells {
				c.from().say()
				if (i+k)%4 == 0 {
					c.sibling.client.say()
					c.sibling.server.say()
				}
			}
			select {
			case <-clock.C:
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

// judge holds the connections to what is to become of them.
func (e *established) judge(change string, cells []*cell, edit edit) {
	e.t.Helper()
	for _, c := range cells {
		c.sibling.exchange(e.t)
	}
	e.stopped(change, cells, edit)
	e.refuses(cells)
	if e.mode == spec.Keep {
		for _, c := range cells {
			c.exchange(e.t)
		}
		return
	}
	e.silent("while conntrack knows it", cells, func(c *cell) *conversation { return c.sibling })
	e.known(cells)
	e.flush()
	// A connection that conntrack has forgotten is a new one to it. Of UDP that
	// is what it is; TCP shows that it is not.
	var tcp []*cell
	for _, c := range cells {
		if c.protocol == lab.TCP {
			tcp = append(tcp, c)
		}
	}
	e.silent("after conntrack has forgotten it", tcp, func(c *cell) *conversation {
		i := slices.IndexFunc(cells, func(o *cell) bool {
			return o.route == c.route && o.protocol == lab.UDP && o.family == c.family && o.speaker == c.speaker
		})
		return cells[i].sibling
	})
}

// attempts is how often each side speaks, so that no packet of the sibling can
// have overtaken all of those before it.
const attempts = 3

// silent has the speakers and then the others speak, and expects that nothing
// arrives, of what they say or of what TCP says for them.
func (e *established) silent(when string, cells []*cell, beside func(*cell) *conversation) {
	e.t.Helper()
	before := e.counts()
	heard := map[*end]uint64{}
	for _, c := range cells {
		for _, side := range []*end{c.client, c.server} {
			heard[side], _ = side.latest()
		}
	}
	for range attempts {
		for _, c := range cells {
			c.from().say()
			beside(c).exchange(e.t)
		}
	}
	for range attempts {
		for _, c := range cells {
			c.to().say()
			beside(c).exchange(e.t)
		}
	}
	after := e.counts()
	for _, c := range cells {
		for _, side := range []string{"client", "server"} {
			if now, _ := c.side(side).latest(); now != heard[c.side(side)] {
				e.t.Errorf("%s: the %s hears the other %s", c.name, side, when)
			}
			if n := after[e.arrivals(c, side)] - before[e.arrivals(c, side)]; n != 0 {
				e.t.Errorf("%s: %d packets come to the %s %s", c.name, n, side, when)
			}
		}
	}
}

// stopped notes when the last packets of speakers arrived, and expects that none
// did after the rules were in force.
func (e *established) stopped(change string, cells []*cell, edit edit) {
	e.t.Helper()
	if e.mode == spec.Keep {
		return
	}
	for _, r := range routes {
		var last time.Duration
		n := 0
		for _, c := range cells {
			if c.route != r {
				continue
			}
			_, at := c.to().latest()
			if at.After(edit.settled) {
				e.t.Errorf("%s: something passes %v after the rules were in force", c.name, at.Sub(edit.settled))
			}
			last = max(last, at.Sub(edit.began))
			n++
		}
		if n > 0 {
			judge := "n1"
			if strings.Contains(change, "ingress") {
				judge = r.node
			}
			fmt.Fprintf(e.table, "%s\t%s\t%d\t%.1f ms\t%.1f ms\n", change, r.name, n,
				float64(last.Microseconds())/1000, float64(edit.written[judge].Sub(edit.began).Microseconds())/1000)
		}
	}
}

// refuses expects that no new connection comes to the servers, and that one
// comes to the siblings', which is opened later on the same way.
func (e *established) refuses(cells []*cell) {
	e.t.Helper()
	for _, c := range cells {
		for _, port := range []int{c.port, c.port + siblings} {
			f := knock(e.t, c.protocol, e.lab.Pod("p11"), c.route.dialed(e.network, c.family, port))
			defer f.Close()
		}
		select {
		case <-c.sibling.strangers:
		case <-time.After(patience):
			e.t.Fatalf("%s takes no new connection", c.sibling.name)
		}
	}
	for _, c := range cells {
		if len(c.strangers) > 0 {
			e.t.Errorf("%s: the server takes a new connection", c.name)
		}
	}
}

// arrivals are packets that a counter counts.
type arrivals struct {
	machine, set string
	protocol     lab.Protocol
	port         uint16
}

// The sets that count: packets by where they go to, and by where they come from.
const (
	countTo   = "to"
	countFrom = "from"
)

// arrivals are the packets of a connection that come to one of its ends.
func (e *established) arrivals(c *cell, side string) arrivals {
	if side == "server" {
		return arrivals{c.route.server, countTo, c.protocol, uint16(c.port)}
	}
	return arrivals{"p11", countFrom, c.protocol, c.route.dialed(e.network, c.family, c.port).Port()}
}

// count has a machine count what arrives at its own sockets, behind all other
// rules.
func (e *established) count(machine string) {
	e.t.Helper()
	e.sh(machine, `nft -f - <<'end'
table inet arrivals {
	set to   { type inet_proto . inet_service; flags dynamic; size 65535; }
	set from { type inet_proto . inet_service; flags dynamic; size 65535; }
	chain input {
		type filter hook input priority 300;
		meta l4proto { tcp, udp } update @to   { meta l4proto . th dport counter }
		meta l4proto { tcp, udp } update @from { meta l4proto . th sport counter }
	}
}
end`)
}

var counted = regexp.MustCompile(`(tcp|udp) \. (\d+) counter packets (\d+)`)

// counts are the packets that have arrived so far.
func (e *established) counts() map[arrivals]int {
	e.t.Helper()
	counts := map[arrivals]int{}
	machines := []string{"p11"}
	for _, r := range routes {
		machines = append(machines, r.server)
	}
	slices.Sort(machines)
	for _, machine := range slices.Compact(machines) {
		for _, set := range []string{countTo, countFrom} {
			for _, m := range counted.FindAllStringSubmatch(e.sh(machine, "nft list set inet arrivals "+set), -1) {
				port, _ := strconv.ParseUint(m[2], 10, 16)
				packets, _ := strconv.Atoi(m[3])
				counts[arrivals{machine, set, lab.Protocol(m[1]), uint16(port)}] = packets
			}
		}
	}
	return counts
}

// known expects that conntrack still has the connections, on the client's node
// and the server's.
func (e *established) known(cells []*cell) {
	e.t.Helper()
	numbers := map[lab.Protocol]uint8{lab.TCP: unix.IPPROTO_TCP, lab.UDP: unix.IPPROTO_UDP}
	for _, node := range nodeNames {
		flows := map[spec.Family][]*netlink.ConntrackFlow{}
		err := e.lab.Node(node).Do(func() (err error) {
			if flows[spec.IPv4], err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET); err != nil {
				return err
			}
			flows[spec.IPv6], err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET6)
			return err
		})
		if err != nil {
			e.t.Fatalf("reading conntrack on %s: %v", node, err)
		}
		for _, c := range cells {
			if node != "n1" && node != c.route.node {
				continue
			}
			known := slices.ContainsFunc(flows[c.family], func(f *netlink.ConntrackFlow) bool {
				return f.Forward.Protocol == numbers[c.protocol] && f.Reverse.SrcPort == uint16(c.port) &&
					f.Reverse.SrcIP.Equal(c.route.address(e.network, c.family).AsSlice())
			})
			if !known {
				e.t.Errorf("%s: conntrack on %s no longer knows it", c.name, node)
			}
		}
	}
}

// flush has conntrack forget everything, as `conntrack -F` does.
func (e *established) flush() {
	e.t.Helper()
	for _, node := range nodeNames {
		if err := e.lab.Node(node).Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			e.t.Fatalf("flushing conntrack on %s: %v", node, err)
		}
	}
}

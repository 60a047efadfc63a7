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
	siblingPort = 11_000
	morePorts   = siblingPort - firstPort // there are so many of either
	servicePort = 20_000                  // is added to the server's
)

func ports(first int) string {
	return fmt.Sprintf(`["%d-%d/tcp", "%[1]d-%[2]d/udp"]`, first, first+morePorts-1)
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
func (r route) dialed(n *network, f spec.Family, port uint16) netip.AddrPort {
	a := r.address(n, f)
	if r.service != 0 {
		port += servicePort
		a = serviceAddress(f, r.service)
	}
	return netip.AddrPortFrom(a, port)
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
`, ports(siblingPort))

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

// tightening is what users do to policies so that open connections are to stop.
type tightening struct {
	name      string
	direction spec.Direction // whose judgement it changes
	forget    []string       // the nodes on which conntrack forgets everything afterwards
	policies  string         // afterwards
}

var tightenings = []tightening{
	{"deny added on ingress", spec.Ingress, nodeNames, allowing[spec.Egress] + allowing[spec.Ingress] + fmt.Sprintf(`
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
	{"deny added on egress", spec.Egress, nodeNames, allowing[spec.Egress] + allowing[spec.Ingress] + fmt.Sprintf(`
policy "closed" {
  order    = 1
  selector = "pod == 'p11'"
  egress {
    action = "deny"
    ports  = %s
  }
}
`, ports(firstPort))},
	{"allowing policy of ingress deleted", spec.Ingress, []string{"n2", "n3"}, allowing[spec.Egress]},
	{"allowing policy of egress deleted", spec.Egress, []string{"n1"}, allowing[spec.Ingress]},
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
			for _, a := range tightenings {
				e.change(e.text(allowing[spec.Egress] + allowing[spec.Ingress]))
				cells := e.open(a.direction)
				stop := talk(cells)
				edit := e.change(e.text(a.policies))
				stop()
				e.judge(a, cells, edit)
				for _, c := range cells {
					c.end()
				}
			}
			if mode == spec.Recheck {
				e.table.Flush()
				t.Log("when the packets were sent, after the edit of the file:\n" + e.report.String())
			}
		})
	}
}

// established is a lab in which connections are open while policies change.
type established struct {
	*network
	mode              spec.Established
	cluster           cluster
	daemons           []*daemon
	port, siblingPort uint16 // the next that are free
	report            strings.Builder
	table             *tabwriter.Writer
}

func newEstablished(t *testing.T, mode spec.Established) *established {
	e := &established{mode: mode, cluster: cluster{backend: backendDirect, pods: dual}, port: firstPort, siblingPort: siblingPort}
	e.table = tabwriter.NewWriter(&e.report, 0, 0, 2, ' ', 0)
	fmt.Fprintln(e.table, "change\tway\tconnections\tlast that passed\tfirst that did not\trules written")
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
	for port := firstPort; port < siblingPort+morePorts; port++ {
		ports = append(ports, fmt.Sprintf("%d : %d", port+servicePort, port))
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

// cell is who speaks next on connections by one way.
type cell struct {
	name     string
	route    route
	protocol lab.Protocol
	family   spec.Family
	speaker  side
	// Three connections that are to stop. On the first the speaker speaks all
	// the time. TCP holds back what it has to say while it does not hear that
	// the rest has arrived: for each time that the sides are to speak later there
	// is a connection on which everything has.
	talking, known, forgotten *connection
	sibling                   *connection // one that is not to stop
}

// side is an end of a connection.
type side string

const (
	client side = "client"
	server side = "server"
)

var sides = []side{client, server}

func (s side) other() side {
	if s == client {
		return server
	}
	return client
}

// connection is a conversation with the server's port.
type connection struct {
	*conversation
	*cell
	port uint16 // as the server has it
}

// at is the connection's end at a side.
func (c *connection) at(s side) *end {
	if s == client {
		return c.client
	}
	return c.server
}

// open opens the connections that a change of a direction is about.
func (e *established) open(d spec.Direction) []*cell {
	e.t.Helper()
	var cells []*cell
	for _, r := range routes {
		if r.open && d == spec.Ingress {
			continue
		}
		for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
			for _, f := range dual {
				for _, speaker := range sides {
					c := &cell{
						name:  fmt.Sprintf("%s, %s over %s, the %s speaks", r.name, protocol, f, speaker),
						route: r, protocol: protocol, family: f, speaker: speaker,
					}
					c.talking, c.known, c.forgotten = e.converse(c, &e.port), e.converse(c, &e.port), e.converse(c, &e.port)
					c.sibling = e.converse(c, &e.siblingPort)
					cells = append(cells, c)
				}
			}
		}
	}
	return cells
}

// converse opens one connection of a cell, to the next port.
func (e *established) converse(c *cell, next *uint16) *connection {
	e.t.Helper()
	port := *next
	*next++
	at := netip.AddrPortFrom(c.route.address(e.network, c.family), port)
	v := converse(e.t, c.name, c.protocol, e.lab.Pod("p11"), e.lab.Machine(c.route.server), c.route.dialed(e.network, c.family, port), at)
	if want := c.route.source(e.network, c.family); v.source != want {
		e.t.Fatalf("%s: the server hears %s and not %s", c.name, v.source, want)
	}
	return &connection{v, c, port}
}

func (c *cell) end() {
	for _, v := range []*connection{c.talking, c.known, c.forgotten, c.sibling} {
		v.close()
	}
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
				c.talking.at(c.speaker).say()
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
func (e *established) judge(change tightening, cells []*cell, edit edit) {
	e.t.Helper()
	for _, c := range cells {
		c.sibling.exchange(e.t)
	}
	e.refuses(cells)
	if e.mode == spec.Keep {
		for _, c := range cells {
			c.talking.exchange(e.t)
			c.known.exchange(e.t)
		}
	} else {
		e.stopped(change, cells, edit)
		e.silent(cells, silence{
			when: "while conntrack knows it",
			what: func(c *cell) *connection { return c.known },
			too:  func(c *cell) *connection { return c.talking },
			may:  func(*cell, side) bool { return true },
		})
		e.known(cells)
	}
	if e.mode == spec.Keep {
		// What is kept is what a node knows: all have to forget it.
		change.forget = nodeNames
	}
	e.flush(change.forget)
	// A connection that conntrack has forgotten is a new one to it, of whoever
	// speaks first. TCP shows that it is not. What the server of UDP says is
	// what it would be: another connection, the other way round.
	e.silent(cells, silence{
		when: "after conntrack has forgotten it",
		what: func(c *cell) *connection { return c.forgotten },
		may:  func(c *cell, s side) bool { return c.protocol == lab.TCP || s == client },
		// A node that masquerades does not know either whose the server's packet
		// is, and tells it so.
		answered: func(c *cell, s side) bool { return c.protocol == lab.TCP && c.route.masqueraded && s == server },
	})
}

// silence is what is expected of connections after a change.
type silence struct {
	when     string
	what     func(*cell) *connection
	too      func(*cell) *connection // TCP speaks on it by itself; nil: there is none
	may      func(*cell, side) bool  // who speaks
	answered func(*cell, side) bool  // to whom a node answers itself; nil: to nobody
}

// attempts is how often each side speaks, so that no packet of the sibling can
// have overtaken all of those before it.
const attempts = 3

// silent has the speakers speak and then the others, and expects that everything
// is sent and that nothing arrives, of what they say or of what TCP says for
// them.
func (e *established) silent(cells []*cell, want silence) {
	e.t.Helper()
	before := e.counts()
	for _, other := range []bool{false, true} {
		for range attempts {
			for _, c := range cells {
				speaker := c.speaker
				if other {
					speaker = speaker.other()
				}
				if want.may(c, speaker) {
					want.what(c).at(speaker).say()
				}
			}
			// TCP's siblings end with conntrack's memory of them.
			for _, c := range cells {
				if c.protocol == lab.UDP {
					c.sibling.exchange(e.t)
				}
			}
		}
	}
	after := e.counts()
	for _, c := range cells {
		if want.too != nil {
			for _, s := range sides {
				came, _ := e.counters(want.too(c), s)
				if n := after[came] - before[came]; n > 0 {
					e.t.Errorf("%s: %d packets of what was said before come to the %s %s", c.name, n, s, want.when)
				}
			}
		}
		v := want.what(c)
		for _, s := range sides {
			came, sent := e.counters(v, s)
			if n := after[came] - before[came]; n > 0 && (want.answered == nil || !want.answered(c, s)) {
				e.t.Errorf("%s: %d packets come to the %s %s", c.name, n, s, want.when)
			}
			if n := after[sent] - before[sent]; n < attempts && want.may(c, s) && (want.answered == nil || !want.answered(c, s)) {
				e.t.Errorf("%s: the %s sends only %d packets %s", c.name, s, n, want.when)
			}
		}
	}
}

// stopped notes when the speakers' packets stopped, and expects that none passed
// that was sent after the rules were in force.
func (e *established) stopped(change tightening, cells []*cell, edit edit) {
	e.t.Helper()
	milliseconds := func(t time.Time) string {
		return fmt.Sprintf("%.1f ms", float64(t.Sub(edit.began).Microseconds())/1000)
	}
	for _, r := range routes {
		var passed, lost time.Time // the latest of all connections
		n := 0
		for _, c := range cells {
			if c.route != r {
				continue
			}
			n++
			last, first := c.talking.at(c.speaker).through(c.talking.at(c.speaker.other()))
			if last.After(edit.settled) || first.IsZero() {
				e.t.Errorf("%s: what is said %v after the rules were in force passes", c.name, last.Sub(edit.settled))
			}
			if last.After(passed) {
				passed = last
			}
			if first.After(lost) {
				lost = first
			}
		}
		if n == 0 {
			continue
		}
		judge := "n1"
		if change.direction == spec.Ingress {
			judge = r.node
		}
		fmt.Fprintf(e.table, "%s\t%s\t%d\t%s\t%s\t%s\n", change.name, r.name, n, milliseconds(passed), milliseconds(lost), milliseconds(edit.written[judge]))
	}
}

// refuses expects that no new connection comes to the servers, and that one
// comes to the siblings', which is opened later on the same way.
func (e *established) refuses(cells []*cell) {
	e.t.Helper()
	for _, c := range cells {
		for _, v := range []*connection{c.known, c.sibling} {
			f := knock(e.t, c.protocol, e.lab.Pod("p11"), c.route.dialed(e.network, c.family, v.port))
			defer f.Close()
		}
		select {
		case <-c.sibling.strangers:
		case <-time.After(patience):
			e.t.Fatalf("%s: the sibling's server hears of no new connection", c.name)
		}
	}
	for _, c := range cells {
		if len(c.known.strangers) > 0 {
			e.t.Errorf("%s: the server hears of a new connection", c.name)
		}
	}
}

// counter is a machine's counter of packets of a protocol: those that come to
// its sockets, or that these send, to the port or from it.
type counter struct {
	machine, set string
	protocol     lab.Protocol
	port         uint16
}

// counters are those of a connection's packets at one of its ends.
func (e *established) counters(c *connection, s side) (came, sent counter) {
	if s == server {
		return counter{c.route.server, "came_to", c.protocol, c.port}, counter{c.route.server, "sent_from", c.protocol, c.port}
	}
	port := c.route.dialed(e.network, c.family, c.port).Port()
	return counter{"p11", "came_from", c.protocol, port}, counter{"p11", "sent_to", c.protocol, port}
}

// count has a machine count what arrives at its sockets, behind all other
// rules, and what these send, before all others.
func (e *established) count(machine string) {
	e.t.Helper()
	e.sh(machine, `nft -f - <<'end'
table inet counts {
	set came_to   { type inet_proto . inet_service; flags dynamic; size 65535; }
	set came_from { type inet_proto . inet_service; flags dynamic; size 65535; }
	set sent_to   { type inet_proto . inet_service; flags dynamic; size 65535; }
	set sent_from { type inet_proto . inet_service; flags dynamic; size 65535; }
	chain input {
		type filter hook input priority 300;
		meta l4proto { tcp, udp } update @came_to   { meta l4proto . th dport counter }
		meta l4proto { tcp, udp } update @came_from { meta l4proto . th sport counter }
	}
	chain output {
		type filter hook output priority -500;
		meta l4proto { tcp, udp } update @sent_to   { meta l4proto . th dport counter }
		meta l4proto { tcp, udp } update @sent_from { meta l4proto . th sport counter }
	}
}
end`)
}

var counted = regexp.MustCompile(`(tcp|udp) \. (\d+) counter packets (\d+)`)

// counts are the packets so far.
func (e *established) counts() map[counter]int {
	e.t.Helper()
	counts := map[counter]int{}
	machines := []string{"p11"}
	for _, r := range routes {
		machines = append(machines, r.server)
	}
	slices.Sort(machines)
	for _, machine := range slices.Compact(machines) {
		for _, set := range []string{"came_to", "came_from", "sent_to", "sent_from"} {
			for _, m := range counted.FindAllStringSubmatch(e.sh(machine, "nft list set inet counts "+set), -1) {
				port, _ := strconv.ParseUint(m[2], 10, 16) // digits
				packets, _ := strconv.Atoi(m[3])
				counts[counter{machine, set, lab.Protocol(m[1]), uint16(port)}] = packets
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
				return f.Forward.Protocol == numbers[c.protocol] && f.Reverse.SrcPort == c.known.port &&
					f.Reverse.SrcIP.Equal(c.route.address(e.network, c.family).AsSlice())
			})
			if !known {
				e.t.Errorf("%s: conntrack on %s no longer knows it", c.name, node)
			}
		}
	}
}

// flush has conntrack forget everything, as `conntrack -F` does.
func (e *established) flush(nodes []string) {
	e.t.Helper()
	for _, node := range nodes {
		if err := e.lab.Node(node).Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			e.t.Fatalf("flushing conntrack on %s: %v", node, err)
		}
	}
}

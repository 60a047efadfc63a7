package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

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
				if err := e.table.Flush(); err != nil {
					t.Fatal(err)
				}
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
	daemons           map[string]*daemon
	port, siblingPort uint16 // the next that are free
	report            strings.Builder
	table             *tabwriter.Writer
}

func newEstablished(t *testing.T, mode spec.Established) *established {
	e := &established{mode: mode, cluster: cluster{backend: backendDirect, pods: dual}, port: firstPort, siblingPort: siblingPort, daemons: map[string]*daemon{}}
	e.table = tabwriter.NewWriter(&e.report, 0, 0, 2, ' ', 0)
	fmt.Fprintln(e.table, "change\tway\tconnections\tlast that passed\tfirst that did not\trules written")
	e.network = up(t, e.cluster)
	e.spec = load(t, e.text(""))
	for _, node := range nodeNames {
		e.daemons[node] = e.run(node, e.text(""))
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
	began, settled time.Time
	before         map[string]uint64 // the latest event of each node's daemon
}

// change edits the file of every node and waits until it is in force.
func (e *established) change(text string) edit {
	e.t.Helper()
	e.spec = load(e.t, text)
	made := edit{before: map[string]uint64{}}
	for node, d := range e.daemons {
		made.before[node] = d.Journal().Last()
	}
	made.began = time.Now()
	for _, d := range e.daemons {
		d.write(text)
	}
	e.settled()
	made.settled = time.Now()
	return made
}

// written is when a node's daemon had written what an edit changed.
func (e *established) written(node string, made edit) time.Time {
	e.t.Helper()
	return e.daemons[node].await(made.before[node], "a change", func(v reconcile.Event) bool { return v.Type == reconcile.EventChanged }).Time
}

func (e *established) settled() {
	e.t.Helper()
	for _, d := range e.daemons {
		d.settle("an edit")
	}
}

// cell is who speaks next on connections by one way.
type cell struct {
	name     string
	way      way
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
	for _, r := range ways {
		if r.open && d == spec.Ingress {
			continue
		}
		for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
			for _, f := range dual {
				for _, speaker := range sides {
					c := &cell{
						name: fmt.Sprintf("%s, %s over %s, the %s speaks", r.name, protocol, f, speaker),
						way:  r, protocol: protocol, family: f, speaker: speaker,
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
	at := netip.AddrPortFrom(c.way.address(e.network, c.family), port)
	v := converse(e.t, c.name, c.protocol, e.lab.Pod("p11"), e.lab.Machine(c.way.server), c.way.dialled(e.network, c.family, port), at)
	if want := c.way.source(e.network, c.family); v.source != want {
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
	e.network.forget(change.forget)
	// A connection that conntrack has forgotten is a new one to it, of whoever
	// speaks first. TCP shows that it is not. What the server of UDP says is
	// what it would be: another connection, the other way round.
	e.silent(cells, silence{
		when: "after conntrack has forgotten it",
		what: func(c *cell) *connection { return c.forgotten },
		may:  func(c *cell, s side) bool { return c.protocol == lab.TCP || s == client },
		// A node that masquerades does not know either whose the server's packet
		// is, and tells it so.
		answered: func(c *cell, s side) bool { return c.protocol == lab.TCP && c.way.masqueraded && s == server },
	})
}

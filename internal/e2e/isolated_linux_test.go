package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/spec"
)

// isolated makes a lab with policies in force. They should leave the siblings'
// ports open: what does not arrive is found missing beside what does.
func isolated(t *testing.T, policies string) *network {
	t.Helper()
	t.Parallel()
	n := up(t, cluster{backend: backendDirect, pods: dual, more: policies})
	n.applyAll()
	return n
}

// addressOf is the address of a machine: of a pod, a node, or the host outside.
func (n *network) addressOf(machine string, f spec.Family) netip.Addr {
	return way{server: machine}.address(n, f)
}

// ear is a socket of a machine that hears who knocks, and lets go at once.
type ear struct {
	at    netip.AddrPort
	heard chan struct{}
}

// openEar opens one until the test ends. It hears ICMP of every kind, without
// a port.
func (n *network) openEar(protocol lab.Protocol, machine string, f spec.Family, port uint16) *ear {
	n.t.Helper()
	e := &ear{netip.AddrPortFrom(n.addressOf(machine, f), port), make(chan struct{}, 1000)}
	var listener net.Listener
	var packets net.PacketConn
	err := n.lab.Machine(machine).Do(func() (err error) {
		switch protocol {
		case lab.TCP:
			listener, err = net.Listen("tcp", e.at.String())
		case lab.UDP:
			packets, err = net.ListenPacket("udp", e.at.String())
		default:
			packets, err = net.ListenPacket(rawICMP(f), e.at.Addr().String())
		}
		return err
	})
	if err != nil {
		n.t.Fatalf("listening on %s of %s: %v", e.at, machine, err)
	}
	if listener != nil {
		n.t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				e.heard <- struct{}{}
				_ = c.Close() // it has nothing to say
			}
		}()
		return e
	}
	n.t.Cleanup(func() { packets.Close() })
	go func() {
		message := make([]byte, 256)
		for {
			size, _, err := packets.ReadFrom(message)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// A node's raw socket hears neighbour discovery, too.
			if err == nil && slices.Equal(message[max(0, size-len(knocking)):size], []byte(knocking)) {
				e.heard <- struct{}{}
			}
		}
	}()
	return e
}

// hears waits until somebody knocks.
func (e *ear) hears(t *testing.T, what string) {
	t.Helper()
	select {
	case <-e.heard:
	case <-time.After(patience):
		t.Errorf("%s: does not arrive", what)
	}
}

// hearsNothing expects that nobody has knocked. The conversations are on the way
// that a knock would have taken.
func (e *ear) hearsNothing(t *testing.T, what string, beside ...*conversation) {
	t.Helper()
	for range attempts {
		for _, c := range beside {
			c.exchange(t)
		}
	}
	if len(e.heard) > 0 {
		t.Errorf("%s: arrives", what)
	}
}

// beside opens a conversation on a way, to a port of the siblings.
func (n *network) beside(from, to string, f spec.Family, port uint16) *conversation {
	n.t.Helper()
	at := netip.AddrPortFrom(n.addressOf(to, f), port)
	c := converse(n.t, fmt.Sprintf("from %s to %s", from, at), lab.UDP, n.lab.Machine(from), n.lab.Machine(to), at, at)
	n.t.Cleanup(c.close)
	return c
}

// knock has a machine knock at an ear.
func (n *network) knock(protocol lab.Protocol, from string, at *ear) {
	n.t.Helper()
	f := knock(n.t, protocol, n.lab.Machine(from), at.at)
	n.t.Cleanup(func() { f.Close() })
}

// everythingDenied isolates every pod in both directions, but for the siblings'
// ports.
var everythingDenied = fmt.Sprintf(`
policy "closed" {
  types = ["ingress", "egress"]
  ingress {
    action = "allow"
    ports  = %[1]s
  }
  egress {
    action = "allow"
    ports  = %[1]s
  }
}
`, ports(siblingPort))

// TestOwnNodeReachesPods: where everything is denied, a node's probes of its own
// pods pass, and their answers do. Another node's do not, and what a pod opens
// to its own node is judged.
func TestOwnNodeReachesPods(t *testing.T) {
	n := isolated(t, everythingDenied)
	wire, err := n.lab.Wire(8472)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	port := uint16(firstPort)
	sibling := uint16(siblingPort)
	for _, f := range dual {
		for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
			port++
			at := netip.AddrPortFrom(n.addressOf("p11", f), port)
			converse(t, fmt.Sprintf("a probe of %s by %s", at, protocol), protocol, n.lab.Node("n1"), n.lab.Pod("p11"), at, at).close()
			for _, way := range [][2]string{
				{"n2", "p11"}, {"n1", "p21"}, {"n1", "p31"}, {"p11", "n1"}, {"p11", "n2"}, {"p11", "p12"}, {"p11", "p21"}, {"p11", "p31"}, {"p11", "outside"},
			} {
				port++
				sibling++
				ear := n.openEar(protocol, way[1], f, port)
				n.knock(protocol, way[0], ear)
				ear.hearsNothing(t, fmt.Sprintf("%s from %s to %s over %s", protocol, way[0], way[1], f), n.beside(way[0], way[1], f, sibling))
			}
		}
		r, err := wire.Probe(lab.Flow{From: n.lab.Node("n1"), To: n.lab.Pod("p11"), Addr: n.addressOf("p11", f), Protocol: lab.ICMP, Timeout: patience})
		if err != nil || !r.Answered {
			t.Errorf("a ping by the own node over %s: %v %+v", f, err, r)
		}
	}
}

// untracked is another program's table that keeps connection tracking off a
// port.
const untracked = `nft -f - <<'end'
table inet raw {
	chain prerouting {
		type filter hook prerouting priority raw;
		meta l4proto { tcp, udp } th dport 11500 notrack
		meta l4proto { tcp, udp } th sport 11500 notrack
	}
	chain output {
		type filter hook output priority raw;
		meta l4proto { tcp, udp } th dport 11500 notrack
		meta l4proto { tcp, udp } th sport 11500 notrack
	}
}
end`

// TestUntrackedDoesNotPass: a packet of which conntrack knows nothing cannot be
// judged. It neither comes to an isolated pod nor from it, also where policies
// allow its port; for others it is as ever, and for what the node itself sends.
func TestUntrackedDoesNotPass(t *testing.T) {
	n := isolated(t, fmt.Sprintf(`
policy "isolated" {
  selector = "pod == 'p11'"
  types    = ["ingress", "egress"]
  ingress {
    action = "allow"
    ports  = %[1]s
  }
  egress {
    action = "allow"
    ports  = %[1]s
  }
}
`, ports(siblingPort)))
	n.sh("n1", untracked)
	sibling := uint16(siblingPort)
	for _, f := range dual {
		for _, protocol := range []lab.Protocol{lab.TCP, lab.UDP} {
			ears := map[string]*ear{}
			for _, machine := range []string{"p11", "p12", "p21", "n1"} {
				ears[machine] = n.openEar(protocol, machine, f, 11500)
			}
			for _, way := range []struct {
				from, to string
				passes   bool
			}{
				{"p11", "p12", false}, {"p11", "p21", false}, {"p11", "n1", false}, {"p12", "p11", false}, {"p21", "p11", false}, {"n2", "p11", false},
				{"p12", "p21", true}, {"p21", "p12", true}, {"p12", "n1", true}, {"n1", "p12", true}, {"n1", "p11", protocol == lab.UDP},
			} {
				sibling++
				what := fmt.Sprintf("untracked %s from %s to %s over %s", protocol, way.from, way.to, f)
				n.knock(protocol, way.from, ears[way.to])
				if way.passes {
					ears[way.to].hears(t, what)
				} else {
					ears[way.to].hearsNothing(t, what, n.beside(way.from, way.to, f, sibling))
				}
			}
		}
	}
}

// TestErrorsArrive: where everything but UDP is denied, what ICMP has to say
// about UDP comes back, by every way: that a port is closed, and that a packet is
// too big.
func TestErrorsArrive(t *testing.T) {
	n := isolated(t, `
policy "udp" {
  types = ["ingress", "egress"]
  ingress {
    action = "allow"
    ports  = ["*/udp"]
  }
  egress {
    action = "allow"
    ports  = ["*/udp"]
  }
}
`)
	for _, f := range dual {
		for _, to := range []string{"p12", "p21", "p31", "n1", "n2", "outside"} {
			at := netip.AddrPortFrom(n.addressOf(to, f), 9)
			var c net.Conn
			err := n.lab.Pod("p11").Do(func() (err error) {
				c, err = net.Dial("udp", at.String())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			_, err = c.Write([]byte("is anybody there"))
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("from p11 to the closed port %s on %s: %v", at, to, err)
			}
			_ = c.Close() // it was only read from
		}
		n.probeSizes(f)
	}
}

// rawICMP is package net's name for raw sockets of a family's ICMP.
func rawICMP(f spec.Family) string {
	if f == spec.IPv4 {
		return "ip4:1"
	}
	return "ip6:58"
}

// otherQuery is a type of ICMP messages that ask something, and are no echo
// requests: for a timestamp (RFC 792), and for a node's name (RFC 4620).
func otherQuery(f spec.Family) uint8 {
	if f == spec.IPv4 {
		return 13
	}
	return 139
}

// ask sends an ICMP message of a type.
func (n *network) ask(from string, at *ear, messageType uint8) {
	n.t.Helper()
	f := spec.FamilyOf(at.at.Addr())
	message := packet.Echo(f, uint16(unix.Getpid()), 1, []byte("timestamps: "+knocking))
	if f == spec.IPv4 {
		// The sum of 16-bit words changes by that of the type's (RFC 1624); the
		// kernel sums ICMPv6 itself.
		sum := uint32(^binary.BigEndian.Uint16(message[2:])) + uint32(^(uint16(message[0]) << 8)) + uint32(messageType)<<8
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(message[2:], ^uint16(sum&0xffff+sum>>16))
	}
	message[0] = messageType
	err := n.lab.Machine(from).Do(func() error {
		c, err := net.Dial(rawICMP(f), at.at.Addr().String())
		if err != nil {
			return err
		}
		_, err = c.Write(message)
		return errors.Join(err, c.Close())
	})
	if err != nil {
		n.t.Fatalf("sending ICMP of type %d from %s: %v", messageType, from, err)
	}
}

// TestICMPByType: a rule about one type of ICMP messages is about no other, on
// the same node, by VXLAN and directly.
func TestICMPByType(t *testing.T) {
	n := isolated(t, fmt.Sprintf(`
policy "echo" {
  selector = "pod in {'p12', 'p21'}"
  ingress {
    action = "allow"
    icmp   = ["echo-request"]
  }
  ingress {
    action = "allow"
    ports  = %[1]s
  }
}
policy "other" {
  selector = "pod in {'p22', 'p31'}"
  ingress {
    action = "allow"
    icmp   = ["timestamp-request/icmp", "139/icmpv6"]
  }
  ingress {
    action = "allow"
    ports  = %[1]s
  }
}
`, ports(siblingPort)))
	wire, err := n.lab.Wire(8472)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	sibling := uint16(siblingPort)
	for _, f := range dual {
		for _, to := range []struct {
			pod            string
			allowed, other uint8
		}{
			{"p12", packet.EchoRequest(f), otherQuery(f)},
			{"p21", packet.EchoRequest(f), otherQuery(f)},
			{"p22", otherQuery(f), packet.EchoRequest(f)},
			{"p31", otherQuery(f), packet.EchoRequest(f)},
		} {
			ear := n.openEar(lab.ICMP, to.pod, f, 0)
			sibling++
			n.ask("p11", ear, to.other)
			ear.hearsNothing(t, fmt.Sprintf("ICMP of type %d from p11 to %s", to.other, to.pod), n.beside("p11", to.pod, f, sibling))
			n.ask("p11", ear, to.allowed)
			ear.hears(t, fmt.Sprintf("ICMP of type %d from p11 to %s", to.allowed, to.pod))
			if to.allowed == packet.EchoRequest(f) {
				r, err := wire.Probe(lab.Flow{From: n.lab.Pod("p11"), To: n.lab.Pod(to.pod), Addr: ear.at.Addr(), Protocol: lab.ICMP, Timeout: patience})
				if err != nil || !r.Answered {
					t.Errorf("a ping of %s over %s: %v %+v", to.pod, f, err, r)
				}
			}
		}
	}
}

// TestFailsafeSurvivesConntrack: where a node denies everything on its
// interface, a connection to a failsafe port goes on when conntrack has
// forgotten it, also where the server speaks before the client does.
func TestFailsafeSurvivesConntrack(t *testing.T) {
	n := isolated(t, `
host_endpoint "edge" {
  node      = "n2"
  interface = "eth0"
  labels    = { role = "edge" }
}
policy "edge" {
  host_selector = "role == 'edge'"
  types         = ["ingress", "egress"]
}
`)
	for _, f := range dual {
		ear := n.openEar(lab.TCP, "n2", f, 8022)
		for _, way := range []struct {
			client, server string
			port           uint16
		}{{"outside", "n2", 22}, {"n2", "outside", 6443}} {
			for _, next := range sides {
				at := netip.AddrPortFrom(n.addressOf(way.server, f), way.port)
				c := converse(t, fmt.Sprintf("from %s to %s, the %s speaks", way.client, at, next), lab.TCP, n.lab.Machine(way.client), n.lab.Machine(way.server), at, at)
				n.forget([]string{"n2"})
				if next == server {
					c.server.say() // it waits for the client to speak
				}
				c.exchange(t)
				n.knock(lab.TCP, "outside", ear)
				ear.hearsNothing(t, "a connection to another port", c)
				c.close()
			}
		}
	}
}

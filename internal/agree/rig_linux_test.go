package agree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/world"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

// rig is the first node of all worlds as a network namespace. The far ends of
// its links are in another one, where packets are put in and come out as they
// are: who has an address is a matter of the link that a packet comes by.
type rig struct {
	node, far *lab.Namespace
	writer    *nft.Writer
	reader    *nft.Reader
	conntrack *netlink.Handle
	wire      int            // packet socket on all far ends
	links     map[string]int // index of a far end, by its name
	names     map[int]string
	local     map[rawKind]int // raw sockets of the node
	sequence  uint32
}

// rawKind is a family and a protocol.
type rawKind struct {
	family   spec.Family
	protocol uint8
}

var rawKinds = func() (kinds []rawKind) {
	for _, f := range spec.Families {
		for _, p := range []uint8{spec.ProtocolTCP, spec.ProtocolUDP, spec.ProtocolSCTP, icmpOf(f), 47} {
			kinds = append(kinds, rawKind{f, p})
		}
	}
	return kinds
}()

// mostPods is the number of endpoints that a world can have on a node.
const mostPods = 6

// marker is the link of a workload that is no endpoint, of which no policy says
// anything: its packets to the outside always pass.
const marker = "pm"

var (
	markerAddress = netip.MustParseAddr("10.244.1.250")
	gatewayMAC    = spec.MAC{2, 0, 0, 0, 1, 1} // of the node's link to the outside
	bridgeMAC     = spec.MAC{2, 0, 0, 0, 1, 2}
	outsideMAC    = spec.MAC{2, 0, 0, 0, 1, 3}
	markerMAC     = spec.MAC{2, 0, 0, 0, 1, 4}
)

func podMAC(i int) spec.MAC { return spec.MAC{2, 0, 0, 0, 0, byte(i)} }

// script makes the links, with neighbours and FDB entries that never expire, and
// a foreign table. It translates what goes to services, and what comes from
// certain ports; and it keeps the kernel from answering packets that nobody
// listens to.
func script() string {
	var s strings.Builder
	fmt.Fprintf(&s, `
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
		sysctl -qw net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
		sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0
		sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
		ip link add cni0 address %s type bridge mcast_snooping 0
		ip link set cni0 up
		ip addr add 10.244.1.0/32 dev lo
		ip addr add 10.244.1.1/24 dev cni0
		ip -6 addr add fd00:10:244:1::1/64 dev cni0 nodad
		ip link set eth0 address %s up
		ip addr add 192.0.2.11/32 dev eth0
		ip -6 addr add 2001:db8::11/128 dev eth0 nodad
		ip neigh replace 192.0.2.1 lladdr %[3]s dev eth0 nud permanent
		ip neigh replace 2001:db8::1 lladdr %[3]s dev eth0 nud permanent
		ip route add default via 192.0.2.1 dev eth0 onlink
		ip -6 route add default via 2001:db8::1 dev eth0 onlink
	`, bridgeMAC, gatewayMAC, outsideMAC)
	for i := range mostPods {
		fmt.Fprintf(&s, "ip link set p%d master cni0 up\nbridge fdb replace %s dev p%[1]d master static\n", i, podMAC(i))
		for k := range 2 {
			fmt.Fprintf(&s, "ip neigh replace 10.244.1.%[1]d lladdr %[2]s dev cni0 nud permanent\nip neigh replace fd00:10:244:1::%[1]x lladdr %[2]s dev cni0 nud permanent\n", 4+2*i+k, podMAC(i))
		}
	}
	fmt.Fprintf(&s, "ip link set pm master cni0 up\nip neigh replace %s lladdr %s dev cni0 nud permanent\n", markerAddress, markerMAC)
	s.WriteString(`
		nft -f - <<-END
		table inet lab {
			map services4 { type inet_service : ipv4_addr . inet_service; }
			map services6 { type inet_service : ipv6_addr . inet_service; }
			chain quiet {
				type filter hook output priority -400;
				tcp flags & rst == rst drop
				icmp type { destination-unreachable, redirect } drop
				icmpv6 type { destination-unreachable, nd-redirect, parameter-problem } drop
			}
			chain pre {
				type nat hook prerouting priority dstnat;
				ip daddr 10.96.0.10 meta l4proto { tcp, udp, sctp } dnat ip to th dport map @services4
				ip6 daddr fd00:10:96::10 meta l4proto { tcp, udp, sctp } dnat ip6 to th dport map @services6
			}
			chain out {
				type nat hook output priority -100;
				ip daddr 10.96.0.10 meta l4proto { tcp, udp, sctp } dnat ip to th dport map @services4
				ip6 daddr fd00:10:96::10 meta l4proto { tcp, udp, sctp } dnat ip6 to th dport map @services6
			}
			chain post {
				type nat hook postrouting priority srcnat;
				oifname eth0 meta nfproto ipv4 meta l4proto { tcp, udp, sctp } th sport 30000-39999 snat ip to 203.0.113.1
				oifname eth0 meta nfproto ipv6 meta l4proto { tcp, udp, sctp } th sport 30000-39999 snat ip6 to 2001:db8:f::1
			}
		}
		END
	`)
	return s.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	lab.Require(t)
	for _, tool := range []string{"ip", "bridge", "nft"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("POLDER_KERNEL") == "require" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("this test makes its network with %s", tool)
		}
	}
	r := &rig{links: map[string]int{}, names: map[int]string{}, local: map[rawKind]int{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	namespace := func(name string) *lab.Namespace {
		n, err := lab.NewNamespace(name)
		must(err)
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		return n
	}
	r.node, r.far = namespace("n1"), namespace("far")
	must(r.open())
	must(r.carried())
	t.Cleanup(func() {
		r.conntrack.Close()
		err := errors.Join(r.writer.Close(), r.reader.Close(), unix.Close(r.wire))
		for _, fd := range r.local {
			err = errors.Join(err, unix.Close(fd))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return r
}

// open makes the links and opens the sockets.
func (r *rig) open() error {
	links := []string{"eth0", marker}
	for i := range mostPods {
		links = append(links, fmt.Sprintf("p%d", i))
	}
	err := r.far.Do(func() error {
		if err := sh(r.far, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"); err != nil {
			return err
		}
		var err error
		r.wire, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		return unix.SetsockoptInt(r.wire, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	if err != nil {
		return err
	}
	err = r.node.Do(func() error {
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer ns.Close()
		return r.far.Do(func() error {
			for _, name := range links {
				pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, Flags: 0}, PeerName: name, PeerNamespace: netlink.NsFd(ns.Fd())}
				if err := netlink.LinkAdd(pair); err != nil {
					return fmt.Errorf("adding %s: %w", name, err)
				}
				if err := netlink.LinkSetUp(pair); err != nil {
					return err
				}
				made, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				r.links[name], r.names[made.Attrs().Index] = made.Attrs().Index, name
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	if err := sh(r.node, script()); err != nil {
		return err
	}
	return r.node.Do(func() (err error) {
		if r.writer, err = nft.OpenWriter(); err != nil {
			return err
		}
		if r.reader, err = nft.OpenReader(); err != nil {
			return err
		}
		if r.conntrack, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		for _, k := range rawKinds {
			if r.local[k], err = rawSocket(k); err != nil {
				return err
			}
		}
		return nil
	})
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// rawSocket is a socket that gets what comes to the node behind its input hook,
// and sends packets with headers of our own.
func rawSocket(k rawKind) (int, error) {
	domain, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL
	if k.family == spec.IPv6 {
		domain, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(k.protocol))
	if err != nil {
		return 0, fmt.Errorf("raw socket of protocol %d: %w", k.protocol, err)
	}
	return fd, unix.SetsockoptInt(fd, level, option, 1)
}

func sh(n *lab.Namespace, script string) error {
	out, err := n.Command(context.Background(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("on %s: %w\n%s", n.Name(), err, out)
	}
	return nil
}

// carried waits until packets from and to every link come through, which they
// do some time after both ends are up (link_watch.c).
func (r *rig) carried() error {
	for began := time.Now(); ; {
		if err := r.patience(50 * time.Millisecond); err != nil {
			return err
		}
		var list []sent
		for i := range mostPods {
			pod := netip.AddrFrom4([4]byte{10, 244, 1, byte(4 + 2*i)})
			for _, way := range []sent{{from: fmt.Sprintf("p%d", i), to: "eth0", mac: bridgeMAC}, {from: "eth0", to: fmt.Sprintf("p%d", i), mac: gatewayMAC}} {
				w := wire{src: netip.AddrPortFrom(pod, 9), dst: netip.AddrPortFrom(world.Outside(spec.IPv4), 9), protocol: spec.ProtocolUDP}
				if way.from == "eth0" {
					w.src, w.dst = w.dst, w.src
				}
				way.id = r.next()
				way.packet = w.packet(way.id)
				list = append(list, way)
			}
		}
		arrived, err := r.send(list)
		switch {
		case err == nil && len(arrived) == len(list):
			return r.patience(patience)
		case time.Since(began) > patience:
			return fmt.Errorf("%d of %d packets come through (%w)", len(arrived), len(list), err)
		}
	}
}

// patience is how long to wait for a packet that must come.
const patience = 10 * time.Second

func (r *rig) patience(d time.Duration) error {
	limit := unix.NsecToTimeval(d.Nanoseconds())
	return unix.SetsockoptTimeval(r.wire, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
}

// commit makes the node's rules of ours those of a table, and reads them back.
func (r *rig) commit(want nft.Ruleset) (nft.Ruleset, error) {
	id := nft.TableID{Family: nft.INet, Name: nft.TableName}
	have, gen, err := r.reader.Read(context.Background(), id)
	if err != nil {
		return nil, err
	}
	if _, err := r.writer.Commit(context.Background(), nft.Diff(want, have), gen); err != nil {
		return nil, err
	}
	have, _, err = r.reader.Read(context.Background(), id)
	return have, err
}

// sent is a packet that was sent, and where it must come out.
type sent struct {
	packet []byte // IP
	from   string // a far end; "": the node itself
	to     string // likewise
	mac    spec.MAC
	id     uint32
}

// batch bounds the packets that are on their way at once: they must fit into
// the receive buffer of one socket.
const batch = 64

// send sends packets, and tells which of them came out where they must.
func (r *rig) send(list []sent) (map[uint32]bool, error) {
	arrived := map[uint32]bool{}
	for part := range slices.Chunk(list, batch) {
		if err := r.sendBatch(part, arrived); err != nil {
			return nil, err
		}
	}
	return arrived, nil
}

func (r *rig) sendBatch(list []sent, arrived map[uint32]bool) error {
	expected := map[uint32]string{}
	// One thread on one CPU: what it sends goes through one queue, so that the
	// marker comes out last.
	err := r.node.Do(func() error {
		var one unix.CPUSet
		one.Set(0)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		for _, s := range list {
			expected[s.id] = s.to
			if err := r.put(s); err != nil {
				return fmt.Errorf("sending a packet by %q: %w", s.from, err)
			}
		}
		return r.put(r.marker())
	})
	if err != nil {
		return err
	}
	buffer := make([]byte, 2048)
	note := func(data []byte, where string) uint32 {
		id, ok := identity(data)
		if to, known := expected[id]; ok && known && to == where {
			arrived[id] = true
		}
		return id
	}
	for {
		n, from, err := unix.Recvfrom(r.wire, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for the marker: %w", err)
		}
		if id := note(buffer[:n], r.names[from.(*unix.SockaddrLinklayer).Ifindex]); id == r.sequence {
			break
		}
	}
	for _, fd := range r.local {
		for {
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				break
			}
			note(buffer[:n], "")
		}
	}
	return nil
}

func (r *rig) next() uint32 {
	r.sequence++
	return r.sequence
}

func (r *rig) marker() sent {
	id := r.next()
	w := wire{src: netip.AddrPortFrom(markerAddress, 9), dst: netip.AddrPortFrom(world.Outside(spec.IPv4), 9), protocol: spec.ProtocolUDP}
	return sent{packet: w.packet(id), from: marker, to: "eth0", mac: bridgeMAC, id: id}
}

// put sends one packet.
func (r *rig) put(s sent) error {
	if s.from != "" {
		etherType := uint16(unix.ETH_P_IP)
		if s.packet[0]>>4 == 6 {
			etherType = unix.ETH_P_IPV6
		}
		frame := slices.Concat(s.mac[:], outsideMAC[:], binary.BigEndian.AppendUint16(nil, etherType), s.packet)
		return unix.Sendto(r.wire, frame, 0, &unix.SockaddrLinklayer{Ifindex: r.links[s.from]})
	}
	var err error
	if s.packet[0]>>4 == 4 {
		err = unix.Sendto(r.local[rawKind{spec.IPv4, s.packet[9]}], s.packet, 0, &unix.SockaddrInet4{Addr: [4]byte(s.packet[16:20])})
	} else {
		err = unix.Sendto(r.local[rawKind{spec.IPv6, s.packet[6]}], s.packet, 0, &unix.SockaddrInet6{Addr: [16]byte(s.packet[24:40])})
	}
	if errors.Is(err, unix.EPERM) {
		return nil // the output hook's drop, which does not arrive
	}
	return err
}

// flush forgets all connections.
func (r *rig) flush() error { return r.conntrack.ConntrackTableFlush(netlink.ConntrackTable) }

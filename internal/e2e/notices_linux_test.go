package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// notices are the kernel's own words of what changes on a node: all that
// rtnetlink and nftables notify of, and the switches that a command writes to,
// which are read every millisecond. Nothing of polder's is in between.
type notices struct {
	t        *testing.T
	mu       sync.Mutex
	said     []notice
	links    map[string]string // what is known of each, but for what moves by itself
	vteps    map[uint32]bool   // by index
	more     chan struct{}     // of capacity 1
	switches chan look
}

// look at switches from now on, and close begun then.
type look struct {
	files []string
	begun chan struct{}
}

type notice struct {
	at   time.Time
	what string
}

// portSwitches are what a bridge does with a port, of the attributes that stand
// among its timers and counters.
var portSwitches = []uint16{
	nl.IFLA_BRPORT_MCAST_FLOOD, nl.IFLA_BRPORT_BCAST_FLOOD, nl.IFLA_BRPORT_NEIGH_SUPPRESS, nl.IFLA_BRPORT_ISOLATED,
}

var noticeGroups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_NETCONF,
}

// listen begins to listen on a node.
func (n *network) listen(node string) *notices {
	n.t.Helper()
	w := &notices{
		t: n.t, links: map[string]string{}, vteps: map[uint32]bool{},
		more: make(chan struct{}, 1), switches: make(chan look),
	}
	var sockets []*os.File
	err := n.lab.Node(node).Do(func() error {
		for protocol, groups := range map[int][]int{unix.NETLINK_ROUTE: noticeGroups, unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES}} {
			f, err := noticeSocket(protocol, groups)
			if err != nil {
				return err
			}
			sockets = append(sockets, f)
			if protocol == unix.NETLINK_ROUTE {
				for _, family := range []byte{unix.AF_UNSPEC, unix.AF_BRIDGE} {
					if err := w.askForLinks(f, family); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, f := range sockets {
		running.Go(func() { w.read(f) })
	}
	running.Go(func() {
		_ = n.lab.Node(node).Do(func() error { w.poll(ctx); return nil })
	})
	n.t.Cleanup(func() {
		cancel()
		for _, f := range sockets {
			_ = f.Close()
		}
		running.Wait()
	})
	return w
}

func noticeSocket(protocol int, groups []int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "notifications")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// askForLinks has the kernel say what the links are before it says what
// becomes of them.
func (w *notices) askForLinks(f *os.File, family byte) error {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[unix.SizeofNlMsghdr] = family
	if _, err := f.Write(b); err != nil {
		return err
	}
	b = make([]byte, noticeBuffer)
	for {
		n, err := f.Read(b)
		if err != nil {
			return err
		}
		if w.hear(b[:n]) {
			return nil
		}
	}
}

const noticeBuffer = 1 << 18

func (w *notices) read(f *os.File) {
	b := make([]byte, noticeBuffer)
	for {
		n, err := f.Read(b)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				w.t.Errorf("listening to the kernel: %v", err)
			}
			return
		}
		w.hear(b[:n])
	}
}

// hear takes messages, and says whether a dump is complete.
func (w *notices) hear(b []byte) (done bool) {
	now := time.Now()
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		done = done || kind == unix.NLMSG_DONE
		if what := w.word(kind, b[unix.SizeofNlMsghdr:length]); what != "" {
			w.say(notice{now, what})
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return done
}

func (w *notices) say(x notice) {
	w.mu.Lock()
	w.said = append(w.said, x)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// poll reads switches.
func (w *notices) poll(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	held := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case look := <-w.switches:
			clear(held)
			for _, f := range look.files {
				b, err := os.ReadFile(f)
				if err != nil {
					w.t.Error(err)
				}
				held[f] = string(b)
			}
			close(look.begun)
		case <-tick.C:
			for f, before := range held {
				// A switch of a link goes with it, and comes again.
				if b, err := os.ReadFile(f); err == nil && string(b) != before {
					held[f] = string(b)
					w.say(notice{time.Now(), f})
				}
			}
		}
	}
}

var switchPath = regexp.MustCompile(`/proc/sys/[^\s;]+`)

// begin forgets what was said. The switches that a command names are looked at
// from now on.
func (w *notices) begin(command string) {
	l := look{switchPath.FindAllString(command, -1), make(chan struct{})}
	w.switches <- l
	<-l.begun
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = nil
}

// quiet waits until nothing has been said for a while.
func (w *notices) quiet(while time.Duration) {
	for {
		timer := time.NewTimer(while)
		select {
		case <-w.more:
			timer.Stop()
		case <-timer.C:
			return
		}
	}
}

// span is when the first and the last word came since the beginning, and how
// many there were.
func (w *notices) span() (first, last time.Time, words []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.said {
		words = append(words, fmt.Sprintf("%s %v", x.what, x.at.Sub(w.said[0].at).Round(10*time.Microsecond)))
	}
	if len(w.said) == 0 {
		return time.Time{}, time.Time{}, nil
	}
	return w.said[0].at, w.said[len(w.said)-1].at, words
}

// word is what a message is about, and nothing where it is about what moves by
// itself: carriers and bridge timers, neighbours that are resolved, addresses
// of links, groups.
func (w *notices) word(kind uint16, b []byte) string {
	if kind>>8 == unix.NFNL_SUBSYS_NFTABLES {
		return "nftables"
	}
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(kind, b)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if w.vteps[binary.NativeEndian.Uint32(b[4:])] {
			return "neighbour"
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if scope := b[3]; scope != unix.RT_SCOPE_LINK {
			return "address"
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		flags := binary.NativeEndian.Uint32(b[8:])
		dst := attributes(b[unix.SizeofRtMsg:])[unix.RTA_DST]
		ofLinks := b[0] == unix.AF_INET6 && len(dst) > 0 && dst[0]&0xfe == 0xfe
		if flags&unix.RTM_F_CLONED == 0 && b[4] == unix.RT_TABLE_MAIN && !ofLinks {
			return "route"
		}
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return "nexthop"
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		return "netconf"
	}
	return ""
}

// link is a word if the link is another than it was.
func (w *notices) link(kind uint16, b []byte) string {
	index := binary.NativeEndian.Uint32(b[4:])
	key := fmt.Sprint(b[0], " ", index)
	if kind == unix.RTM_DELLINK {
		delete(w.links, key)
		return "link"
	}
	a := attributes(b[unix.SizeofIfInfomsg:])
	now := fmt.Sprintf("%t %q", binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0, a[unix.IFLA_IFNAME])
	for _, k := range []uint16{unix.IFLA_MTU, unix.IFLA_ADDRESS, unix.IFLA_MASTER, unix.IFLA_IFALIAS} {
		now += fmt.Sprintf(" %x", a[k])
	}
	info := attributes(a[unix.IFLA_LINKINFO])
	if strings.HasPrefix(string(info[unix.IFLA_INFO_KIND]), "vxlan") {
		w.vteps[index] = true
	}
	own := []uint16{nl.IFLA_BR_STP_STATE, nl.IFLA_BR_VLAN_FILTERING, nl.IFLA_BR_GROUP_FWD_MASK}
	for k, v := range attributes(info[unix.IFLA_INFO_DATA]) {
		if !strings.HasPrefix(string(info[unix.IFLA_INFO_KIND]), "bridge") || slices.Contains(own, k) {
			now += fmt.Sprintf("\n%03d %x", k, v)
		}
	}
	for _, port := range [][]byte{info[unix.IFLA_INFO_SLAVE_DATA], a[unix.IFLA_PROTINFO]} {
		for k, v := range attributes(port) {
			if k != nl.IFLA_BRPORT_STATE && k < nl.IFLA_BRPORT_ROOT_ID || slices.Contains(portSwitches, k) {
				now += fmt.Sprintf("\nport %03d %x", k, v)
			}
		}
	}
	lines := strings.Split(now, "\n")
	slices.Sort(lines)
	now = strings.Join(lines, "\n")
	before, known := w.links[key]
	w.links[key] = now
	if known && before == now {
		return ""
	}
	return "link"
}

// attributes are those of a message, by their type.
func attributes(b []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			break
		}
		all[binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[unix.SizeofRtAttr:length]
		b = b[min(len(b), (length+3)&^3):]
	}
	return all
}

package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// raw writes polder's objects for many peers with nothing between it and the
// kernel: messages laid out ahead, sent by the 64 KiB, one acknowledgement a
// batch.
type raw struct {
	batches [][]byte
}

const (
	rawBatch = 64 << 10
	rtaNHID  = 30 // RTA_NH_ID, rtnetlink.h
)

// add appends a message: header, body, attributes.
func (r *raw) add(kind, flags uint16, body []byte, attrs ...[]byte) {
	m := append([]byte(nil), body...)
	for _, a := range attrs {
		m = append(m, a...)
	}
	h := make([]byte, unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(h, uint32(len(h)+len(m)))
	binary.NativeEndian.PutUint16(h[4:], kind)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if n := len(r.batches); n == 0 || len(r.batches[n-1])+len(h)+len(m) > rawBatch {
		r.batches = append(r.batches, nil)
	}
	last := &r.batches[len(r.batches)-1]
	*last = append(append(*last, h...), m...)
}

func attr(kind uint16, value []byte) []byte {
	b := make([]byte, 4, 12)
	binary.NativeEndian.PutUint16(b, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func attr32(kind uint16, value int) []byte {
	return attr(kind, binary.NativeEndian.AppendUint32(nil, uint32(value)))
}

// peer appends the four objects of one peer.
func (r *raw) peer(ifindex, id int, gateway, remote netip.Addr, mac []byte) {
	neigh := make([]byte, 12)
	neigh[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(neigh[4:], uint32(ifindex))
	binary.NativeEndian.PutUint16(neigh[8:], unix.NUD_PERMANENT)
	fdb := append([]byte(nil), neigh...)
	fdb[0], fdb[10] = unix.AF_BRIDGE, unix.NTF_SELF
	hop := []byte{unix.AF_INET, 0, 87, 0, 4, 0, 0, 0} // RTNH_F_ONLINK
	route := []byte{unix.AF_INET, 24, 0, 0, unix.RT_TABLE_MAIN, 87, 0, unix.RTN_UNICAST, 0, 0, 0, 0}
	r.add(unix.RTM_NEWNEIGH, 0, neigh, attr(unix.NDA_DST, gateway.AsSlice()), attr(unix.NDA_LLADDR, mac))
	r.add(unix.RTM_NEWNEIGH, 0, fdb, attr(unix.NDA_LLADDR, mac), attr(unix.NDA_DST, remote.AsSlice()))
	r.add(unix.RTM_NEWNEXTHOP, 0, hop, attr32(unix.NHA_ID, id), attr(unix.NHA_GATEWAY, gateway.AsSlice()), attr32(unix.NHA_OIF, ifindex))
	r.add(unix.RTM_NEWROUTE, 0, route, attr(unix.RTA_DST, gateway.AsSlice()), attr32(rtaNHID, id))
}

// send sends the batches; the last message of each asks to be acknowledged.
func (r *raw) send() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	reply := make([]byte, 4096)
	for _, b := range r.batches {
		last := 0
		for at := 0; at < len(b); at += int(binary.NativeEndian.Uint32(b[at:])) {
			last = at
		}
		b[last+6] |= unix.NLM_F_ACK
		if err := unix.Sendto(fd, b, 0, to); err != nil {
			return err
		}
		n, _, err := unix.Recvfrom(fd, reply, 0)
		if err != nil {
			return err
		}
		if code := int32(binary.NativeEndian.Uint32(reply[16:min(n, 20)])); code != 0 {
			return fmt.Errorf("raw netlink: %w", unix.Errno(-code))
		}
	}
	return nil
}

package lab

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"
)

// sizeError is struct sock_extended_err with a sockaddr behind it.
func sizeError(errno syscall.Errno, origin byte, mtu uint32, sockaddr ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(errno))
	b = append(b, origin, 3, 4, 0)
	b = binary.NativeEndian.AppendUint32(b, mtu)
	b = append(b, 0, 0, 0, 0)
	return append(b, sockaddr...)
}

var (
	sockaddr4 = []byte{2, 0, 0, 0, 10, 244, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	sockaddr6 = append([]byte{10, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("fd00:10:244:1::1").AsSlice()...)
)

func TestDecodeSizeError(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want SizeReport
	}{
		{"ICMP", sizeError(syscall.EMSGSIZE, originICMP, 1450, sockaddr4...), SizeReport{MTU: 1450, Reporter: netip.MustParseAddr("10.244.1.1")}},
		{"ICMPv6", sizeError(syscall.EMSGSIZE, originICMP6, 1430, sockaddr6...), SizeReport{MTU: 1430, Reporter: netip.MustParseAddr("fd00:10:244:1::1")}},
		{"own interface", sizeError(syscall.EMSGSIZE, originLocal, 1500), SizeReport{MTU: 1500}},
	} {
		if got, err := decodeSizeError(c.in); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
	if _, err := decodeSizeError(sizeError(syscall.ECONNREFUSED, originICMP, 0, sockaddr4...)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("another error: %v", err)
	}
	for name, in := range map[string][]byte{
		"nothing":         {},
		"no sockaddr":     sizeError(syscall.EMSGSIZE, originICMP, 1450),
		"unknown origin":  sizeError(syscall.EMSGSIZE, 9, 1450, sockaddr4...),
		"short sockaddr6": sizeError(syscall.EMSGSIZE, originICMP6, 1450, sockaddr4...),
	} {
		if r, err := decodeSizeError(in); err == nil {
			t.Errorf("%s was read as %+v", name, r)
		}
	}
}

func FuzzDecodeSizeError(f *testing.F) {
	f.Add(sizeError(syscall.EMSGSIZE, originICMP, 1450, sockaddr4...))
	f.Add(sizeError(syscall.EMSGSIZE, originICMP6, 1450, sockaddr6...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeSizeError(b); err == nil && r.Delivered {
			t.Fatalf("%+v", r)
		}
	})
}

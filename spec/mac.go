package spec

import (
	"crypto/sha256"
	"fmt"
	"net"
	"strconv"
)

// MAC is an Ethernet address (IEEE 802 EUI-48). It is an array so that it can
// be compared and used as a key.
type MAC [6]byte

// ParseMAC reads an EUI-48 in one of the forms of net.ParseMAC.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, err
	}
	if len(hw) != 6 {
		return MAC{}, fmt.Errorf("address %s: a MAC has 6 bytes, this has %d", s, len(hw))
	}
	return MAC(hw), nil
}

// String is the colon form, lower case.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText is the text of String, for JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMAC(string(text))
	return err
}

// IsZero says that no address is set.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast says that the address can belong to one interface: it is not zero
// and the group bit (IEEE 802, I/G) is clear.
func (m MAC) IsUnicast() bool { return !m.IsZero() && m[0]&1 == 0 }

// deriveMAC computes a locally administered unicast address from what every
// node reads in the same file, so that peers know each other's addresses
// without exchanging them. Fields are length-prefixed: ("ab","c") and
// ("a","bc") differ.
func deriveMAC(fields ...string) MAC {
	var b []byte
	for _, f := range fields {
		b = append(strconv.AppendInt(b, int64(len(f)), 10), ':')
		b = append(b, f...)
	}
	var m MAC
	sum := sha256.Sum256(b)
	copy(m[:], sum[:])
	m[0] = m[0]&^0x03 | 0x02 // individual, locally administered
	return m
}

package overlay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/poldernet/polder/spec"
)

// Numbers of if_link.h and if_addr.h.
const (
	rtmNewLink, rtmDelLink, rtmGetLink                   = 16, 17, 18
	rtmNewAddr, rtmDelAddr, rtmGetAddr                   = 20, 21, 22
	iffUp, iffLowerUp                                    = 0x1, 0x10000
	iflaAddress, iflaIfname, iflaMTU, iflaMaster         = 1, 3, 4, 10
	iflaProtinfo, iflaLinkinfo, iflaIfalias, iflaExtMask = 12, 18, 20, 29
	iflaInfoKind, iflaInfoData                           = 1, 2
	iflaInfoSlaveKind, iflaInfoSlaveData                 = 4, 5
	iflaBrportMode                                       = 4
	extMaskSkipStats                                     = 1 << 3
	ifaAddress, ifaLocal, ifaFlags, ifaProto             = 1, 2, 8, 11
	ifaTemporary, ifaDADFailed                           = 0x01, 0x08
	ifaDeprecated, ifaTentative                          = 0x20, 0x40
	vxlanID, vxlanGroup, vxlanLink, vxlanLocal           = 1, 2, 3, 4
	vxlanLearning, vxlanProxy, vxlanRSC                  = 7, 11, 12
	vxlanL2Miss, vxlanL3Miss, vxlanPort                  = 13, 14, 15
	vxlanGroup6, vxlanLocal6, vxlanGBP                   = 16, 17, 23
	vxlanMetadata, vxlanVNIFilter                        = 25, 30
)

// rawLink is a link as a message says it: other links come as their indices.
type rawLink struct {
	Link         // without the name of the underlay interface
	ifindex      int
	master       int
	device       int  // of a VTEP, the underlay interface
	carrier      bool // IFF_LOWER_UP
	bridgeMember      // where the message says it
}

// bridgeMember is the bridge's side of a port.
type bridgeMember struct {
	Hairpin bool
}

// decodeLink reads a link message of any family but AF_BRIDGE.
func decodeLink(b []byte) (rawLink, error) {
	var l rawLink
	family, err := decodeIfinfo(b, &l)
	if err != nil {
		return l, err
	}
	if family == familyBridge {
		return l, fmt.Errorf("link message of family AF_BRIDGE")
	}
	var nested error
	err = eachAttr(b[16:], func(kind uint16, v []byte) {
		switch kind {
		case iflaIfname:
			l.Name = text(v)
		case iflaIfalias:
			l.Alias = text(v)
		case iflaAddress:
			if len(v) == len(l.MAC) {
				l.MAC = spec.MAC(v)
			}
		case iflaMTU:
			l.MTU = int(uint32From(v))
		case iflaMaster:
			l.master = int(uint32From(v))
		case iflaLinkinfo:
			nested = l.decodeInfo(v)
		}
	})
	if err == nil {
		err = nested
	}
	if err != nil {
		return l, fmt.Errorf("link message: %w", err)
	}
	return l, nil
}

// decodeIfinfo reads struct ifinfomsg of rtnetlink.h, 16 bytes.
func decodeIfinfo(b []byte, l *rawLink) (family byte, err error) {
	if len(b) < 16 {
		return 0, fmt.Errorf("link message of %d bytes", len(b))
	}
	l.ifindex = int(int32(binary.NativeEndian.Uint32(b[4:])))
	flags := binary.NativeEndian.Uint32(b[8:])
	l.Up, l.carrier = flags&iffUp != 0, flags&iffLowerUp != 0
	return b[0], nil
}

// decodeInfo reads IFLA_LINKINFO: what makes the link, and what it is as a
// member of another.
func (l *rawLink) decodeInfo(b []byte) error {
	var data, slave []byte
	var slaveKind string
	err := eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case iflaInfoKind:
			l.Type = LinkType(text(v))
		case iflaInfoData:
			data = v
		case iflaInfoSlaveKind:
			slaveKind = text(v)
		case iflaInfoSlaveData:
			slave = v
		}
	})
	if err == nil && l.Type == TypeVXLAN {
		err = l.decodeVXLAN(data)
	}
	if err == nil && slaveKind == string(TypeBridge) {
		err = l.decodeMember(slave)
	}
	return err
}

func (l *rawLink) decodeVXLAN(b []byte) error {
	v := &l.VXLAN
	return eachAttr(b, func(kind uint16, value []byte) {
		on := len(value) > 0 && value[0] != 0
		switch kind {
		case vxlanID:
			v.VNI = uint32From(value)
		case vxlanPort:
			if len(value) == 2 {
				v.Port = binary.BigEndian.Uint16(value)
			}
		case vxlanLocal, vxlanLocal6:
			v.Local = addrFrom(value)
		case vxlanLink:
			l.device = int(uint32From(value))
		case vxlanLearning:
			v.Learning = on
		case vxlanProxy, vxlanRSC, vxlanL2Miss, vxlanL3Miss, vxlanMetadata, vxlanVNIFilter:
			v.Other = v.Other || on
		case vxlanGroup, vxlanGroup6, vxlanGBP:
			v.Other = true
		}
	})
}

// decodeMember reads the attributes of a bridge's port, which are the same in
// IFLA_PROTINFO and in IFLA_INFO_SLAVE_DATA.
func (m *bridgeMember) decodeMember(b []byte) error {
	return eachAttr(b, func(kind uint16, v []byte) {
		if kind == iflaBrportMode && len(v) == 1 {
			m.Hairpin = v[0] != 0
		}
	})
}

// decodePort reads a link message of family AF_BRIDGE: of it only the index,
// the master and the bridge's side are sure to be there.
func decodePort(b []byte) (rawLink, error) {
	var l rawLink
	if _, err := decodeIfinfo(b, &l); err != nil {
		return l, err
	}
	var nested error
	err := eachAttr(b[16:], func(kind uint16, v []byte) {
		switch kind {
		case iflaMaster:
			l.master = int(uint32From(v))
		case iflaProtinfo:
			nested = l.decodeMember(v)
		}
	})
	if err == nil {
		err = nested
	}
	if err != nil {
		return l, fmt.Errorf("port message: %w", err)
	}
	return l, nil
}

// rawAddress is an address as a message says it.
type rawAddress struct {
	Address
	ifindex int // of the link
	prefix  netip.Prefix
	last    bool // deprecated or temporary: not to be chosen while there is another
}

// decodeAddress reads struct ifaddrmsg of if_addr.h, 8 bytes, and its
// attributes. IFA_LOCAL is the address itself where IFA_ADDRESS is that of the
// other end of a point-to-point link; the length belongs to the latter.
func decodeAddress(b []byte) (rawAddress, error) {
	if len(b) < 8 {
		return rawAddress{}, fmt.Errorf("address message of %d bytes", len(b))
	}
	a := rawAddress{ifindex: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	flags := uint32(b[2])
	var local, address netip.Addr
	err := eachAttr(b[8:], func(kind uint16, v []byte) {
		switch kind {
		case ifaAddress:
			address = addrFrom(v)
		case ifaLocal:
			local = addrFrom(v)
		case ifaFlags:
			flags = uint32From(v)
		case ifaProto:
			if len(v) == 1 {
				a.Protocol = v[0]
			}
		}
	})
	if err != nil {
		return rawAddress{}, fmt.Errorf("address message: %w", err)
	}
	bits := int(b[1])
	if local.IsValid() && local != address {
		address, bits = local, local.BitLen()
	}
	a.prefix = netip.PrefixFrom(address, bits)
	if !a.prefix.IsValid() {
		return rawAddress{}, fmt.Errorf("address message: %s with length %d", addrText(address), bits)
	}
	a.Tentative = flags&(ifaTentative|ifaDADFailed) != 0
	a.last = flags&(ifaDeprecated|ifaTemporary) != 0
	return a, nil
}

// text is a string attribute, which ends with a zero byte.
func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

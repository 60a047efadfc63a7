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
	rtmNewLink, rtmDelLink, rtmGetLink, rtmSetLink       = 16, 17, 18, 19
	rtmNewAddr, rtmDelAddr, rtmGetAddr                   = 20, 21, 22
	iffUp, iffLowerUp                                    = 0x1, 0x10000
	iflaAddress, iflaIfname, iflaMTU, iflaMaster         = 1, 3, 4, 10
	iflaProtinfo, iflaLinkinfo, iflaIfalias, iflaExtMask = 12, 18, 20, 29
	iflaInfoKind, iflaInfoData                           = 1, 2
	iflaInfoSlaveKind, iflaInfoSlaveData                 = 4, 5
	iflaBrportMode, iflaBrportLearning, iflaBrportUcast  = 4, 8, 9
	iflaBrportMcast, iflaBrportBcast                     = 27, 30
	iflaBrportIsolated, iflaBrportLocked                 = 33, 39
	iflaBrSTP, iflaBrVLANFiltering                       = 5, 7
	extMaskSkipStats                                     = 1 << 3
	ifaAddress, ifaLocal, ifaFlags, ifaProto             = 1, 2, 8, 11
	ifaCacheinfo, lifetimeForever                        = 6, 0xffffffff
	ifaTemporary, ifaDADFailed                           = 0x01, 0x08
	ifaDeprecated, ifaTentative                          = 0x20, 0x40
	vxlanID, vxlanGroup, vxlanLink, vxlanLocal           = 1, 2, 3, 4
	vxlanLearning, vxlanProxy, vxlanRSC                  = 7, 11, 12
	vxlanL2Miss, vxlanL3Miss, vxlanPort                  = 13, 14, 15
	vxlanGroup6, vxlanLocal6, vxlanGBP                   = 16, 17, 23
	vxlanMetadata, vxlanVNIFilter                        = 25, 30
	vxlanTTL, vxlanLimit, vxlanZeroCsum6TX               = 5, 9, 19
	vxlanRemCsumTX, vxlanRemCsumRX, vxlanRemCsumPartial  = 21, 22, 24
	vxlanGPE, vxlanTTLInherit, vxlanDF                   = 27, 28, 29
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
	Limits  PortLimits
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
	if err == nil && l.Type == TypeBridge {
		err = l.decodeBridge(data)
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
		case vxlanTTL:
			l.TTL = first(value)
		case vxlanDF:
			l.DF = first(value)
		case vxlanLimit:
			v.Other = v.Other || uint32From(value) != 0
		case vxlanMetadata:
			v.External, v.Other = on, v.Other || on
		case vxlanProxy, vxlanRSC, vxlanL2Miss, vxlanL3Miss, vxlanVNIFilter,
			vxlanTTLInherit, vxlanZeroCsum6TX, vxlanRemCsumTX, vxlanRemCsumRX:
			v.Other = v.Other || on
		case vxlanGroup, vxlanGroup6, vxlanGBP, vxlanGPE, vxlanRemCsumPartial:
			v.Other = true
		}
	})
}

func (l *rawLink) decodeBridge(b []byte) error {
	return eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case iflaBrSTP:
			l.STP = uint32From(v) != 0
		case iflaBrVLANFiltering:
			l.VLANFiltering = first(v) != 0
		}
	})
}

// encodeLink writes those attributes of a living link that differ: a kernel that
// is built without VLAN filtering does not know it, not even as off.
func encodeLink(have, want Link, ifindex int) message {
	var data []byte
	if have.TTL != want.TTL {
		data = appendAttr(data, vxlanTTL, []byte{want.TTL})
	}
	if have.DF != want.DF {
		data = appendAttr(data, vxlanDF, []byte{want.DF})
	}
	if have.STP != want.STP {
		data = appendAttr32(data, iflaBrSTP, uint32(btoi(want.STP)))
	}
	if have.VLANFiltering != want.VLANFiltering {
		data = appendAttr(data, iflaBrVLANFiltering, []byte{byte(btoi(want.VLANFiltering))})
	}
	info := appendAttr(nil, iflaInfoKind, []byte(want.Type))
	info = appendAttr(info, iflaInfoData|nestedFlag, data)
	return message{rtmNewLink, 0, appendAttr(ifinfo(0, ifindex), iflaLinkinfo|nestedFlag, info)}
}

// encodePort writes what a bridge withholds from a port.
func encodePort(l PortLimits, ifindex int) message {
	var b []byte
	for _, a := range []struct {
		kind uint16
		on   bool
	}{
		{iflaBrportIsolated, l.Isolated},
		{iflaBrportLocked, l.Locked},
		{iflaBrportLearning, !l.NoLearning},
		{iflaBrportUcast, !l.NoFlood},
		{iflaBrportMcast, !l.NoFlood},
		{iflaBrportBcast, !l.NoFlood},
	} {
		b = appendAttr(b, a.kind, []byte{byte(btoi(a.on))})
	}
	return message{rtmSetLink, 0, appendAttr(ifinfo(familyBridge, ifindex), iflaProtinfo|nestedFlag, b)}
}

// ifinfo is struct ifinfomsg of rtnetlink.h, 16 bytes.
func ifinfo(family byte, ifindex int) []byte {
	b := make([]byte, 16, 80)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(ifindex))
	return b
}

// first is an attribute of one byte.
func first(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// decodeMember reads the attributes of a bridge's port, which are the same in
// IFLA_PROTINFO and in IFLA_INFO_SLAVE_DATA.
func (m *bridgeMember) decodeMember(b []byte) error {
	return eachAttr(b, func(kind uint16, v []byte) {
		on := first(v) != 0
		switch kind {
		case iflaBrportMode:
			m.Hairpin = on
		case iflaBrportIsolated:
			m.Limits.Isolated = on
		case iflaBrportLocked:
			m.Limits.Locked = on
		case iflaBrportLearning:
			m.Limits.NoLearning = !on
		case iflaBrportUcast, iflaBrportMcast, iflaBrportBcast:
			m.Limits.NoFlood = m.Limits.NoFlood || !on
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
		case ifaCacheinfo: // struct ifa_cacheinfo: preferred, then valid, in seconds
			a.Expires = len(v) >= 8 && (uint32From(v[:4]) != lifetimeForever || uint32From(v[4:8]) != lifetimeForever)
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

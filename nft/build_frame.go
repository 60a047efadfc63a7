package nft

// Protocol is the Ethernet type of what a frame carries, behind its outermost
// VLAN tag if it has one.
func Protocol() Field { return meta(MetaProtocol, 2) }

// TagControl is the priority and the VLAN in the outermost tag of a frame that
// has one (TCI, IEEE 802.1Q).
func TagControl() Field { return payload(LinkHeader, 14, 2) }

// ARPLayout is the beginning of an ARP packet, which says of which kind the
// addresses are, and how long (ar$hrd to ar$pln, RFC 826), 6 bytes.
func ARPLayout() Field { return payload(NetworkHeader, 0, 6, EtherType().Is(Ether(EtherARP))) }

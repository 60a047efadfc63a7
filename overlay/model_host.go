package overlay

import "net/netip"

// What others do to links of their own.

// SetUp is `ip link set NAME up`, or down.
func (m *Model) SetUp(name string, up bool) {
	if l, there := m.state.Links[name]; there {
		l.Up = up
		m.setLink(l)
	}
}

// Unplug takes a link out, with what is on it.
func (m *Model) Unplug(name string) { m.dropLink(name) }

// AddAddress is `ip address add PREFIX dev NAME`. The error is the kernel's.
func (m *Model) AddAddress(name string, prefix netip.Prefix) error {
	return m.putAddress(addressEntry{AddressKey{name, prefix}, Address{}})
}

// DropAddress is `ip address del PREFIX dev NAME`.
func (m *Model) DropAddress(name string, prefix netip.Prefix) {
	m.dropAddress(AddressKey{name, prefix})
}

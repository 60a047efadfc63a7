package overlay

import (
	"net/netip"
	"syscall"
)

// What others do with links and routes of their own, and all that there is.

// State is the whole host's, not only what polder looks at.
func (m *Model) State() State { return m.state.Clone() }

// AddRoute is `ip route add`. The error is the kernel's.
func (m *Model) AddRoute(e RouteEntry) error {
	if _, there := m.state.Routes[e.RouteKey]; there {
		return syscall.EEXIST
	}
	return m.putRoute(e)
}

// ReplaceRoute is `ip route replace`. The error is the kernel's.
func (m *Model) ReplaceRoute(e RouteEntry) error { return m.putRoute(e) }

// SetUp is `ip link set NAME up`, or down.
func (m *Model) SetUp(name string, up bool) {
	if l, there := m.state.Links[name]; there {
		l.Up = up
		m.setLink(l)
	}
}

// SetSysctl is `echo VALUE >/proc/sys/PATH`. The error is the kernel's.
func (m *Model) SetSysctl(path, value string) error { return m.putSysctl(sysctlEntry{path, value}) }

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

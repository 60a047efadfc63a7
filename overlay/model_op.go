package overlay

import (
	"fmt"
	"syscall"

	"github.com/poldernet/polder/internal/change"
)

// Apply carries an operation out, as a Writer would. The error is the kernel's.
// To delete what is not there is no error.
func (m *Model) Apply(op Op) error {
	if err := m.apply(op); err != nil {
		return fmt.Errorf("%s %s %s: %w", op.Change.Action, op.object.kind(), op.object.name(), err)
	}
	return nil
}

func (m *Model) apply(op Op) error {
	if op.delete {
		m.drop(op.object)
		return nil
	}
	if op.Change.Action == change.Replace && op.before != nil {
		if _, link := op.object.(Link); !link { // of which the deletion is an operation of its own
			m.drop(op.before)
		}
	}
	switch o := op.object.(type) {
	case Link:
		return m.writeLink(o, op.Change.Action == change.Replace)
	case portEntry:
		return m.writePort(o)
	case addressEntry:
		return m.putAddress(o)
	case neighbourEntry:
		return m.putNeighbour(o)
	case proxyEntry:
		if _, there := m.state.Links[o.Link]; !there {
			return syscall.ENODEV
		}
		m.state.Proxies[o.NeighbourKey] = o.Proxy
		return nil
	case fdbRow:
		return m.putFDB(o)
	case nextHopEntry:
		_, there := m.state.NextHops[o.id]
		if there && op.Change.Action == change.Create {
			return syscall.EEXIST
		}
		return m.putNextHop(o)
	case RouteEntry:
		_, there := m.state.Routes[o.RouteKey]
		if there && op.Change.Action == change.Create {
			return syscall.EEXIST
		}
		return m.putRoute(o)
	case sysctlEntry:
		return m.putSysctl(o)
	}
	return fmt.Errorf("nothing writes a %s", op.object.kind())
}

func (m *Model) drop(o object) {
	switch o := o.(type) {
	case Link:
		m.dropLink(o.Name)
	case addressEntry:
		m.dropAddress(o.AddressKey)
	case neighbourEntry:
		m.dropNeighbour(o.NeighbourKey)
	case proxyEntry:
		delete(m.state.Proxies, o.NeighbourKey)
	case fdbRow:
		m.dropFDB(o)
	case nextHopEntry:
		m.dropNextHop(o.id, true)
	case RouteEntry:
		m.dropRoute(o, true)
	}
}

// writeLink makes a link, or writes what differs. "Up" is the last.
func (m *Model) writeLink(want Link, replace bool) error {
	_, there := m.state.Links[want.Name]
	if there && replace {
		return syscall.EEXIST
	}
	if !there {
		if _, device := m.state.Links[want.VXLAN.Device]; want.Type == TypeVXLAN && !device {
			return syscall.ENODEV
		}
		for _, l := range m.state.Links {
			if sameTunnel(l, want) {
				return syscall.EEXIST
			}
		}
		down := want
		down.Up = false
		m.newLink(down)
	}
	m.setLink(want)
	return nil
}

func (m *Model) writePort(want portEntry) error {
	have, there := m.state.Ports[want.link]
	_, master := m.state.Links[want.Master]
	if !there || want.Master != "" && !master {
		return syscall.ENODEV
	}
	if have.Master != want.Master {
		m.enslave(want.link, want.Master)
	}
	if want.Master != "" && m.state.Ports[want.link].Hairpin != want.Hairpin {
		m.setHairpin(want.link, want.Hairpin)
	}
	if l := m.state.Links[want.link]; want.Up && !l.Up {
		l.Up = true
		m.setLink(l)
	}
	return nil
}

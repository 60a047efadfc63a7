package overlay

import (
	"slices"

	"github.com/poldernet/polder/internal/change"
)

// Op is one step of a plan: an object is put (created, or written over what is
// there) or deleted.
type Op struct {
	Change change.Change
	// Hidden marks what another operation shows: the first half of a
	// replacement, since all links that go make room before any comes; and what
	// the kernel changes with a switch and has to be changed back.
	Hidden bool
	delete bool
	object object
	before object // what is overwritten; nil: nothing
}

// Sysctl is the switch that the operation writes: its path below /proc/sys and
// its value before ("" where it does not exist yet) and after.
func (o Op) Sysctl() (path, before, after string, ok bool) {
	s, ok := o.object.(sysctlEntry)
	if !ok {
		return "", "", "", false
	}
	if b, there := o.before.(sysctlEntry); there {
		before = b.value
	}
	return s.path, before, s.value, true
}

// Enslaved is the link that the operation makes a port of a bridge, and the
// bridges before and after, "" for none.
func (o Op) Enslaved() (link, before, after string, ok bool) {
	p, ok := o.object.(portEntry)
	if !ok {
		return "", "", "", false
	}
	if b, there := o.before.(portEntry); there {
		before = b.Master
	}
	return p.link, before, p.Master, before != p.Master
}

// put is the operation that writes an object over before, which is nil where
// there is nothing.
func put(action change.Action, after, before object, reason string) Op {
	return Op{Change: describe(action, before, after, reason), object: after, before: before}
}

// remove is the operation that deletes an object.
func remove(before object, reason string) Op {
	return Op{Change: describe(change.Delete, before, nil, reason), delete: true, object: before}
}

// RemoveLink is the operation that deletes a link of which the spec says nothing.
func RemoveLink(l Link) Op { return remove(l, "") }

// RemoveRoute is the operation that deletes a route of which the spec says nothing.
func RemoveRoute(e RouteEntry) Op { return remove(e, "") }

// describe says in the plan's words what becomes of an object. Of a changed
// one it names the attributes that differ.
func describe(action change.Action, before, after object, reason string) change.Change {
	c := change.Change{Action: action, Reason: reason}
	switch {
	case before == nil:
		c.Kind, c.Name, c.Attrs = after.kind(), after.name(), after.attrs()
		for i := range c.Attrs {
			c.Attrs[i].ForcesReplace = false
		}
	case after == nil:
		c.Kind, c.Name, c.Attrs = before.kind(), before.name(), before.attrs()
		for i, a := range c.Attrs {
			c.Attrs[i] = change.Attr{Name: a.Name, Before: a.After}
		}
	default:
		c.Kind, c.Name = after.kind(), after.name()
		c.Attrs, c.Unchanged = differences(before.attrs(), after.attrs())
	}
	return c
}

// differences pairs attributes by name, in the order of the new ones.
func differences(before, after []change.Attr) (differing []change.Attr, same int) {
	for _, a := range after {
		if old, there := named(before, a.Name); there {
			if a.Before = old.After; a.Before == a.After {
				same++
				continue
			}
		}
		differing = append(differing, a)
	}
	for _, b := range before {
		if _, stays := named(after, b.Name); !stays {
			differing = append(differing, change.Attr{Name: b.Name, Before: b.After})
		}
	}
	return differing, same
}

func named(attrs []change.Attr, name string) (change.Attr, bool) {
	i := slices.IndexFunc(attrs, func(a change.Attr) bool { return a.Name == name })
	if i < 0 {
		return change.Attr{}, false
	}
	return attrs[i], true
}

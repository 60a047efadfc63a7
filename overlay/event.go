package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/poldernet/polder/spec"
)

// ErrLost says that the kernel had more to tell than the watcher's buffer
// holds: everything has to be read again. The watcher goes on.
var ErrLost = errors.New("network notifications were lost")

// Event is one message of the kernel's about a change. See
// Observed.Concerns.
type Event struct {
	at   time.Time // when it was received, or later
	gone bool      // the object was deleted
	of   notice
}

// notice is the object of an event.
type notice interface {
	concerns(o *Observed, gone bool) Class
}

// The objects of events, beside rawLink, rawAddress, rawNeigh and rawRoute.
type (
	// portNotice is what a bridge says of one of its ports.
	portNotice rawLink
	hopNotice  struct {
		NextHop
		id      uint32
		ifindex int
		fresh   bool // made where there was none of this ID
	}
	confNotice struct {
		family     spec.Family
		ifindex    int
		forwarding int32
	}
	ruleNotice struct{}
)

// Numbers of rtnetlink.h and netconf.h.
const (
	rtmNewRule, rtmDelRule              = 32, 33
	rtmNewNetconf                       = 80
	netconfaIfindex, netconfaForwarding = 1, 2
	netconfAll, netconfDefault          = -1, -2 // in the place of an index
)

// decodeEvent reads a notification. It is false for one of a kind that never
// concerns anybody here.
func decodeEvent(kind, flags uint16, b []byte) (e Event, ok bool, err error) {
	switch kind {
	case rtmNewLink, rtmDelLink:
		if len(b) > 0 && b[0] == familyBridge {
			var l rawLink
			l, err = decodePort(b)
			e = Event{gone: kind == rtmDelLink, of: portNotice(l)}
			break
		}
		var l rawLink
		l, err = decodeLink(b)
		e = Event{gone: kind == rtmDelLink, of: l}
	case rtmNewAddr, rtmDelAddr:
		var a rawAddress
		a, err = decodeAddress(b)
		e = Event{gone: kind == rtmDelAddr, of: a}
	case rtmNewNeigh, rtmDelNeigh:
		var n rawNeigh
		n, err = decodeNeigh(b)
		e = Event{gone: kind == rtmDelNeigh, of: n}
	case rtmNewNextHop, rtmDelNextHop:
		h := hopNotice{fresh: flags&flagExcl != 0}
		h.id, h.ifindex, h.NextHop, err = decodeNextHop(b)
		e = Event{gone: kind == rtmDelNextHop, of: h}
	case rtmNewRoute, rtmDelRoute:
		var r rawRoute
		r, err = decodeRoute(b)
		e = Event{gone: kind == rtmDelRoute, of: r}
	case rtmNewRule, rtmDelRule:
		e = Event{of: ruleNotice{}}
	case rtmNewNetconf:
		var c confNotice
		if c, ok, err = decodeNetconf(b); !ok {
			return Event{}, false, err
		}
		e = Event{of: c}
	default:
		return Event{}, false, nil
	}
	if err != nil {
		return Event{}, false, err
	}
	return e, true, nil
}

// decodeNetconf reads struct netconfmsg of netconf.h, one byte, and its
// attributes. It is false for a message that says nothing of forwarding.
func decodeNetconf(b []byte) (c confNotice, ok bool, err error) {
	if len(b) < 4 {
		return c, false, fmt.Errorf("netconf message of %d bytes", len(b))
	}
	switch b[0] {
	case familyInet:
		c.family = spec.IPv4
	case familyInet6:
		c.family = spec.IPv6
	default:
		return c, false, nil
	}
	err = eachAttr(b[4:], func(kind uint16, v []byte) {
		if len(v) != 4 {
			return
		}
		switch n := int32(binary.NativeEndian.Uint32(v)); kind {
		case netconfaIfindex:
			c.ifindex = int(n)
		case netconfaForwarding:
			c.forwarding, ok = n, true
		}
	})
	if err != nil {
		return c, false, fmt.Errorf("netconf message: %w", err)
	}
	return c, ok, nil
}

package overlay

import (
	"math/bits"
	"strings"

	"github.com/poldernet/polder/spec"
)

// Class is a set of kinds of objects: those that have to be read again.
type Class uint8

// The classes.
const (
	Links      Class = 1 << iota // links, their addresses, and ports of bridges
	Neighbours                   // of VTEPs, and the bridge's proxies
	FDB                          // of VTEPs
	Routes                       // of the main table, and nexthop objects
	Paths                        // the host's answers to Scope.Ask
	Sysctls                      // which Reader.Sysctls reads, and Refresh does not

	classes    = iota // how many there are
	Everything = Links | Neighbours | FDB | Routes | Paths | Sysctls
)

// bit is the number of a single class.
func (c Class) bit() int { return bits.TrailingZeros8(uint8(c)) }

var classNames = []string{"links", "neighbours", "fdb", "routes", "paths", "sysctls"}

// String lists the classes: "links,routes"; "none".
func (c Class) String() string {
	var names []string
	for i, name := range classNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// Touched is what has to be read again to see what operations have done, with
// what the kernel takes along: a link all that is on it, an address its routes.
func Touched(ops []Op) Class {
	var c Class
	for _, op := range ops {
		switch o := op.object.(type) {
		case Link:
			return Everything
		case portEntry:
			c |= Links
		case addressEntry:
			c |= Links | Routes
			if o.Prefix.Addr().Is4() {
				c |= Neighbours // which go with the last one
			}
		case neighbourEntry, proxyEntry:
			c |= Neighbours
		case fdbRow:
			c |= FDB
		case nextHopEntry, RouteEntry:
			c |= Routes
		case sysctlEntry:
			c |= Sysctls
			switch {
			case strings.HasSuffix(o.path, "/disable_ipv6"): // addresses go and come
				c |= Links | Neighbours | Routes
			case strings.HasSuffix(o.path, "/accept_ra"), o.path == ForwardingSwitch(spec.IPv6): // and advertised routes
				c |= Routes | Paths
			}
		}
	}
	return c
}

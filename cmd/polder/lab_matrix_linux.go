package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fatih/color"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// place is where a probe begins or ends: a pod, or a host outside, of which
// the node is nil.
type place struct {
	name  string
	node  *spec.Node
	addrs spec.PerFamily[netip.Addr]
}

// places are a spec's pods, by node, and then the hosts outside.
func places(t *lab.Topology, s *spec.Spec) (pods, hosts []place) {
	for _, n := range s.Nodes {
		for _, e := range s.Endpoints {
			if e.Node == n.Name {
				p := place{name: e.Name, node: n}
				for _, a := range e.Addresses {
					p.addrs.Set(spec.FamilyOf(a), a)
				}
				pods = append(pods, p)
			}
		}
	}
	for _, m := range t.Machines {
		if m.Role == lab.RoleHost {
			p := place{name: m.Name}
			for _, a := range m.Interfaces[0].Addresses {
				p.addrs.Set(spec.FamilyOf(a.Addr()), a.Addr())
			}
			hosts = append(hosts, p)
		}
	}
	return pods, hosts
}

// promise is what the spec says about a flow: how it travels, and the source
// that its receiver sees.
type promise struct {
	path   lab.Path
	source netip.Addr
}

func promised(s *spec.Spec, f spec.Family, from, to place) promise {
	own := from.addrs.Get(f)
	switch {
	case to.node == nil:
		if s.Network.Masquerade != nil {
			a, _ := from.node.Address(f)
			own = a.Addr
		}
		return promise{lab.PathDirect, own}
	case from.node == to.node:
		return promise{lab.PathBridge, own}
	case s.Network.Backend.Type == spec.HostGW,
		s.Network.Backend.DirectRouting && sameLink(from.node, to.node, s.UnderlayFamily(f)):
		return promise{lab.PathDirect, own}
	default:
		return promise{lab.PathVXLAN, own}
	}
}

func sameLink(a, b *spec.Node, f spec.Family) bool {
	x, _ := a.Address(f)
	y, _ := b.Address(f)
	return x.Link == y.Link
}

// cell is one pair of the reachability table.
type cell struct {
	promise promise
	reports map[lab.Protocol]lab.Report
}

// broken lists what is not as promised.
func (c cell) broken() []string {
	var list []string
	for _, protocol := range demoProtocols {
		r := c.reports[protocol]
		switch {
		case r.Err != nil:
			list = append(list, fmt.Sprintf("%s: %v", protocol, r.Err))
		case !r.Reached:
			list = append(list, fmt.Sprintf("%s did not arrive", protocol))
		case !r.Answered:
			list = append(list, fmt.Sprintf("%s was not answered", protocol))
		case r.Path() != c.promise.path:
			list = append(list, fmt.Sprintf("%s went by %s, promised was %s", protocol, r.Path(), c.promise.path))
		case r.Source != c.promise.source:
			list = append(list, fmt.Sprintf("%s arrived from %v, promised was %v", protocol, r.Source, c.promise.source))
		}
	}
	return list
}

// text is what the table shows: the path, and the source where it was changed.
func (c cell) text() string {
	r := c.reports[lab.UDP]
	switch {
	case !r.Reached:
		return "none"
	case r.NAT():
		return "NAT " + r.Source.String()
	default:
		return string(r.Path())
	}
}

func (c cell) color() *color.Color {
	if len(c.broken()) > 0 {
		return color.New(color.FgRed, color.Bold)
	}
	switch {
	case c.reports[lab.UDP].NAT():
		return color.New(color.FgYellow)
	case c.promise.path == lab.PathBridge:
		return color.New(color.FgGreen)
	case c.promise.path == lab.PathDirect:
		return color.New(color.FgCyan)
	default:
		return color.New(color.FgMagenta)
	}
}

var demoProtocols = []lab.Protocol{lab.UDP, lab.ICMP}

const (
	// probeTimeout leaves room for duplicate address detection, during which
	// a fresh bridge cannot solicit IPv6 neighbours (RFC 4862, section 5.4).
	probeTimeout = 5 * time.Second
	// atOnce is how many probes run at a time.
	atOnce = 16
)

// matrix is the reachability table of one family, by the names of source and
// destination.
type matrix struct {
	family spec.Family
	from   []place
	to     []place
	cells  map[[2]string]cell
}

// pairs yields who is probed from where.
func (m *matrix) pairs(yield func(from, to place) bool) {
	for _, from := range m.from {
		for _, to := range m.to {
			if from.name != to.name && !yield(from, to) {
				return
			}
		}
	}
}

// measure probes every pod pair, and the hosts from every pod.
func measure(l *lab.Lab, w *lab.Wire, t *lab.Topology, s *spec.Spec, f spec.Family, timeout time.Duration) (*matrix, error) {
	pods, hosts := places(t, s)
	m := &matrix{family: f, from: pods, to: append(pods[:len(pods):len(pods)], hosts...), cells: map[[2]string]cell{}}
	var (
		mu      sync.Mutex
		running sync.WaitGroup
		failure error
		slots   = make(chan struct{}, atOnce)
	)
	for from, to := range m.pairs {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c := cell{promise: promised(s, f, from, to), reports: map[lab.Protocol]lab.Report{}}
			var err error
			for _, protocol := range demoProtocols {
				c.reports[protocol], err = w.Probe(lab.Flow{
					From: l.Machine(from.name), To: l.Machine(to.name), Addr: to.addrs.Get(f),
					Protocol: protocol, Timeout: timeout,
				})
				if err != nil {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			m.cells[[2]string{from.name, to.name}] = c
			if failure == nil {
				failure = err
			}
		})
	}
	running.Wait()
	return m, failure
}

// broken lists everything that is not as promised.
func (m *matrix) broken() []string {
	var list []string
	for from, to := range m.pairs {
		for _, b := range m.cells[[2]string{from.name, to.name}].broken() {
			list = append(list, fmt.Sprintf("%s to %s %v: %s", from.name, to.name, to.addrs.Get(m.family), b))
		}
	}
	return list
}

// write prints the table.
func (m *matrix) write(w io.Writer, colored bool) error {
	width := func(column place) int {
		n := len(column.name)
		for from, to := range m.pairs {
			if to.name == column.name {
				n = max(n, len(m.cells[[2]string{from.name, to.name}].text()))
			}
		}
		return n
	}
	paint := func(c *color.Color, s string, n int) string {
		padding := strings.Repeat(" ", max(n-len(s), 0))
		if colored {
			c.EnableColor()
			return c.Sprint(s) + padding
		}
		return s + padding
	}
	heading := color.New(color.Bold)
	first := len("from \\ to")
	for _, from := range m.from {
		first = max(first, len(from.name))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %s", paint(heading, "from \\ to", first))
	for _, to := range m.to {
		fmt.Fprintf(&b, "  %s", paint(heading, to.name, width(to)))
	}
	for _, from := range m.from {
		fmt.Fprintf(&b, "\n  %s", paint(heading, from.name, first))
		for _, to := range m.to {
			if from.name == to.name {
				fmt.Fprintf(&b, "  %-*s", width(to), "-")
				continue
			}
			c := m.cells[[2]string{from.name, to.name}]
			fmt.Fprintf(&b, "  %s", paint(c.color(), c.text(), width(to)))
		}
	}
	for line := range strings.Lines(b.String() + "\n") {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

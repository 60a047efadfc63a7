package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fatih/color"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy"
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
		if s.Network != nil && s.Network.Masquerade != nil {
			a, _ := from.node.Address(f)
			own = a.Addr
		}
		return promise{lab.PathDirect, own}
	case from.node == to.node:
		return promise{lab.PathBridge, own}
	case s.Network == nil, s.Network.Backend.Type == spec.HostGW,
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

// ask is what a place asks another for. Without a port it is for a free one,
// which no rule is taken to name.
type ask struct {
	protocol lab.Protocol
	port     uint16
}

func (a ask) String() string {
	if a.port == 0 {
		return string(a.protocol)
	}
	return fmt.Sprintf("%d/%s", a.port, a.protocol)
}

// flow is the question for the policies.
func (a ask) flow(from, to netip.Addr) policy.Flow {
	f := policy.Flow{From: from, To: to, Port: a.port}
	switch {
	case a.protocol == lab.TCP:
		f.Protocol = spec.ProtocolTCP
	case a.protocol == lab.UDP:
		f.Protocol = spec.ProtocolUDP
	case to.Is4():
		f.Protocol, f.Type = spec.ProtocolICMP, 8 // echo request, RFC 792
	default:
		f.Protocol, f.Type = spec.ProtocolICMPv6, 128 // RFC 4443
	}
	return f
}

// answer is what became of an ask.
type answer struct {
	denied bool // by the policies
	report lab.Report
}

// cell is one pair of the reachability table.
type cell struct {
	promise promise
	answers map[ask]answer
}

// broken lists what is not as promised.
func (c cell) broken(asks []ask) []string {
	var list []string
	for _, a := range asks {
		if wrong := c.wrong(c.answers[a]); wrong != "" {
			list = append(list, fmt.Sprintf("%s %s", a, wrong))
		}
	}
	return list
}

func (c cell) wrong(a answer) string {
	r := a.report
	var timeout net.Error
	late := errors.As(r.Err, &timeout) && timeout.Timeout()
	switch {
	case a.denied && r.Reached:
		return "arrived, and policies deny it"
	case a.denied && (r.Err == nil || late):
		return ""
	case r.Err != nil:
		return fmt.Sprintf("failed: %v", r.Err)
	case !r.Reached:
		return "did not arrive"
	case !r.Answered:
		return "was not answered"
	case r.Path() != c.promise.path:
		return fmt.Sprintf("went by %s, promised was %s", r.Path(), c.promise.path)
	case r.Source != c.promise.source:
		return fmt.Sprintf("arrived from %v, promised was %v", r.Source, c.promise.source)
	}
	return ""
}

// text is what the table shows of what was asked first: the path, and the
// source where it was changed.
func (c cell) text(asks []ask) string {
	a := c.answers[asks[0]]
	switch {
	case a.denied && !a.report.Reached:
		return "denied"
	case !a.report.Reached:
		return "none"
	case a.report.NAT():
		return "NAT " + a.report.Source.String()
	default:
		return string(a.report.Path())
	}
}

func (c cell) color(asks []ask) *color.Color {
	if len(c.broken(asks)) > 0 {
		return color.New(color.FgRed, color.Bold)
	}
	switch {
	case c.answers[asks[0]].denied:
		return color.New(color.Faint)
	case c.answers[asks[0]].report.NAT():
		return color.New(color.FgYellow)
	case c.promise.path == lab.PathBridge:
		return color.New(color.FgGreen)
	case c.promise.path == lab.PathDirect:
		return color.New(color.FgCyan)
	default:
		return color.New(color.FgMagenta)
	}
}

// demoAsks are for where there are no policies.
var demoAsks = []ask{{protocol: lab.UDP}, {protocol: lab.ICMP}}

const (
	// probeTimeout leaves room for duplicate address detection, during which
	// a fresh bridge cannot solicit IPv6 neighbours (RFC 4862, section 5.4).
	probeTimeout = 5 * time.Second
	// deniedTimeout is how long what is denied is given to arrive all the same.
	// It is asked for when all that is allowed has arrived.
	deniedTimeout = 300 * time.Millisecond
	// atOnce is how many probes run at a time; of what is denied, which only
	// waits, there are more.
	atOnce       = 16
	deniedAtOnce = 64
)

// matrix is the reachability table of one family, by the names of source and
// destination.
type matrix struct {
	family spec.Family
	asks   []ask
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

// measure asks every pod from every other, and the hosts from every pod.
func measure(l *lab.Lab, w *lab.Wire, t *lab.Topology, s *spec.Spec, policies *policy.Model,
	f spec.Family, asks []ask, timeout time.Duration,
) (*matrix, error) {
	pods, hosts := places(t, s)
	m := &matrix{family: f, asks: asks, from: pods, to: append(pods[:len(pods):len(pods)], hosts...), cells: map[[2]string]cell{}}
	for from, to := range m.pairs {
		c := cell{promise: promised(s, f, from, to), answers: map[ask]answer{}}
		for _, a := range asks {
			verdict := policies.Evaluate(a.flow(from.addrs.Get(f), to.addrs.Get(f))).Verdict
			c.answers[a] = answer{denied: verdict == spec.Deny}
		}
		m.cells[[2]string{from.name, to.name}] = c
	}
	return m, errors.Join(m.probe(l, w, false, atOnce, timeout), m.probe(l, w, true, deniedAtOnce, deniedTimeout))
}

// probe sends the packets of all that is denied, or of all that is not.
func (m *matrix) probe(l *lab.Lab, w *lab.Wire, denied bool, most int, timeout time.Duration) error {
	type question struct {
		from, to place
		ask
	}
	var questions []question
	for from, to := range m.pairs {
		for _, a := range m.asks {
			if m.cells[[2]string{from.name, to.name}].answers[a].denied == denied {
				questions = append(questions, question{from, to, a})
			}
		}
	}
	type port struct {
		place string
		ask
	}
	var (
		mu      sync.Mutex
		running sync.WaitGroup
		errs    []error
		slots   = make(chan struct{}, most)
		ports   = map[port]*sync.Mutex{}
	)
	for _, q := range questions {
		// A port that is given has one listener at a time.
		if q.port != 0 && ports[port{q.to.name, q.ask}] == nil {
			ports[port{q.to.name, q.ask}] = &sync.Mutex{}
		}
		listener := ports[port{q.to.name, q.ask}]
		running.Go(func() {
			if listener != nil {
				listener.Lock()
				defer listener.Unlock()
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			report, err := w.Probe(lab.Flow{
				From: l.Machine(q.from.name), To: l.Machine(q.to.name), Addr: q.to.addrs.Get(m.family),
				Protocol: q.protocol, Port: q.port, Timeout: timeout,
			})
			mu.Lock()
			defer mu.Unlock()
			m.cells[[2]string{q.from.name, q.to.name}].answers[q.ask] = answer{denied, report}
			errs = append(errs, err)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// broken lists everything that is not as promised.
func (m *matrix) broken() []string {
	var list []string
	for from, to := range m.pairs {
		for _, b := range m.cells[[2]string{from.name, to.name}].broken(m.asks) {
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
				n = max(n, len(m.cells[[2]string{from.name, to.name}].text(m.asks)))
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
			fmt.Fprintf(&b, "  %s", paint(c.color(m.asks), c.text(m.asks), width(to)))
		}
	}
	for line := range strings.Lines(b.String() + "\n") {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

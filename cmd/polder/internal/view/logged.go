package view

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/fatih/color"

	"github.com/poldernet/polder/nft/nflog"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Logged is a packet that a rule logged, as `watch --json` prints it.
type Logged struct {
	FormatVersion string    `json:"format_version"`
	Type          string    `json:"type"` // "logged"
	Time          time.Time `json:"time"`
	// Prefix is what the kernel says which rule it was. If no rule of the spec has
	// it, the members up to Range are absent.
	Prefix string `json:"prefix"`
	// Action is that of what logged: "log" of a rule, which does not decide, and
	// "deny" of a rule or of a tier's default action.
	Action    spec.Action     `json:"action,omitempty"`
	Tier      string          `json:"tier,omitempty"`
	Kind      spec.PolicyKind `json:"kind,omitempty"`   // absent for a tier's default action
	Policy    string          `json:"policy,omitempty"` // likewise
	Direction spec.Direction  `json:"direction,omitempty"`
	Rule      int             `json:"rule,omitempty"` // from 1; absent for a tier's default action
	// Range is that of the rule. For a tier's default action, it is that of the
	// first policy that brings it to the endpoint, which is IsolatedBy.
	Range      *Range `json:"range,omitempty"`
	IsolatedBy string `json:"isolated_by,omitempty"`
	// Reply says that the packet goes from the connection's server, To, to its
	// client, From.
	Reply bool       `json:"reply"`
	From  LoggedEnd  `json:"from"`
	To    LoggedEnd  `json:"to"`
	What  LoggedWhat `json:"packet"`
	// Error says why the packet could not be read.
	Error string `json:"error,omitempty"`

	subject string
}

// LoggedEnd is one end of a connection.
type LoggedEnd struct {
	Endpoint string `json:"endpoint,omitempty"`
	Node     string `json:"node,omitempty"` // whose own address it is
	Address  string `json:"address,omitempty"`
	Port     uint16 `json:"port,omitempty"`
}

// LoggedWhat is what a packet is, behind its addresses.
type LoggedWhat struct {
	Protocol string   `json:"protocol,omitempty"`
	Flags    []string `json:"tcp_flags,omitempty"`
	ICMP     string   `json:"icmp,omitempty"` // "echo-request"
	// Fragment says that it is not the first fragment, and Cut that what was
	// reported of the packet ends before the protocol's header: neither has ports.
	Fragment bool `json:"fragment,omitempty"`
	Cut      bool `json:"cut,omitempty"`
}

// NewLogged is the model of a message, by the rules that there are and those who
// have its addresses. Now is for messages that do not say when they were sent.
func NewLogged(m nflog.Message, counters map[string]policy.Counter, model *policy.Model, now time.Time) Logged {
	name, reply := policy.Logged(m.Prefix)
	c, known := counters[name]
	l := Logged{FormatVersion: FormatVersion, Type: "logged", Time: m.Time, Prefix: m.Prefix, Reply: known && reply}
	if m.Time.IsZero() {
		l.Time = now
	}
	if known {
		l.Action, l.Tier, l.Direction, l.Rule, l.Range, l.subject = c.Action, c.TierName(), c.Direction, c.Rule, newRange(c.Range), c.Subject()
		if c.Policy != nil {
			l.Kind, l.Policy = c.Policy.Kind, c.Policy.Name
		}
	}
	p, err := nflog.Dissect(m.Payload)
	if err != nil {
		l.Error = err.Error()
		return l
	}
	l.From, l.To = newLoggedEnd(model, p.From, p.FromPort), newLoggedEnd(model, p.To, p.ToPort)
	if l.Reply {
		l.From, l.To = l.To, l.From
		p.From, p.To = p.To, p.From
	}
	l.isolated(c, model, p)
	l.What = LoggedWhat{
		Protocol: strings.TrimPrefix(spec.Service{Protocol: p.Protocol}.String(), "*/"),
		Fragment: p.Fragment, Cut: !p.Whole && !p.Fragment,
	}
	switch {
	case p.Whole && p.IsICMP():
		s := policy.Flow{Protocol: p.Protocol, Type: p.Type, Code: p.Code}.Service()
		l.What.ICMP, _, _ = strings.Cut(s.String(), "/")
	case p.Whole:
		l.What.Flags = p.Flags.Names()
	}
	return l
}

// isolated finds why a tier's default action was for a packet.
func (l *Logged) isolated(c policy.Counter, model *policy.Model, p nflog.Packet) {
	subject := model.Endpoint(p.To)
	if c.Direction == spec.Egress {
		subject = model.Endpoint(p.From)
	}
	if c.Tier == nil || subject == nil {
		return
	}
	if by := model.Isolating(c.Tier, c.Direction, subject); by != nil {
		l.IsolatedBy, l.Range = by.ID(), newRange(by.Range)
	}
}

func newLoggedEnd(model *policy.Model, a netip.Addr, port uint16) LoggedEnd {
	end := LoggedEnd{Address: a.String(), Port: port}
	if e := model.Endpoint(a); e != nil {
		end.Endpoint = e.Name
	} else if n := model.Node(a); n != nil {
		end.Node = n.Name
	}
	return end
}

// loggedColours are those of actions.
var loggedColours = map[spec.Action]color.Attribute{spec.Deny: color.FgRed, spec.Log: color.FgCyan}

// WriteText renders the packet on a line: when, the action, by which rule, from
// whom to whom, and what. The arrow points where the packet goes, which for a
// reply is to the left.
func (l Logged) WriteText(w io.Writer, t Text) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s  ", t.faint(l.Time.Local().Format("15:04:05.000")))
	if l.subject == "" {
		fmt.Fprintf(&b, "%s  no rule of the spec logs %q", t.warn("?   "), l.Prefix)
	} else {
		action := fmt.Sprintf("%-4s", l.Action)
		if c, ok := loggedColours[l.Action]; ok {
			action = t.paint(action, c)
		}
		fmt.Fprintf(&b, "%s  %s %s", action, l.subject, l.Direction)
		if l.Rule > 0 {
			fmt.Fprintf(&b, " %d", l.Rule)
		}
		if l.IsolatedBy != "" {
			fmt.Fprintf(&b, " of %s", l.IsolatedBy)
		}
		if l.Range != nil {
			b.WriteString(t.faint(fmt.Sprintf(" (%s)", l.Range)))
		}
	}
	if l.Error != "" {
		fmt.Fprintf(&b, "  a packet that is %s\n", l.Error)
		return flush(w, &b)
	}
	arrow := "->"
	if l.Reply {
		arrow = "<-"
	}
	fmt.Fprintf(&b, "  %s %s %s  %s\n", l.From, arrow, l.To, l.What)
	return flush(w, &b)
}

// String is "web-1 10.244.1.5:41812".
func (e LoggedEnd) String() string {
	address := e.Address
	if e.Port > 0 {
		if a, err := netip.ParseAddr(e.Address); err == nil {
			address = netip.AddrPortFrom(a, e.Port).String()
		}
	}
	switch {
	case e.Endpoint != "":
		return e.Endpoint + " " + address
	case e.Node != "":
		return "node " + e.Node + " " + address
	}
	return address
}

// String is "tcp syn", "icmp echo-request".
func (p LoggedWhat) String() string {
	parts := []string{p.Protocol}
	if p.ICMP != "" {
		parts = append(parts, p.ICMP)
	}
	parts = append(parts, p.Flags...)
	if p.Fragment {
		parts = append(parts, "fragment")
	}
	if p.Cut {
		parts = append(parts, "(cut short)")
	}
	return strings.Join(parts, " ")
}

// Missed says that messages about packets were lost before they could be read.
type Missed struct {
	FormatVersion string    `json:"format_version"`
	Type          string    `json:"type"` // "missed"
	Time          time.Time `json:"time"`
	Count         uint32    `json:"count,omitempty"` // absent: not known yet
}

// NewMissed is the model of so many messages that were lost, 0 where that is
// not known yet.
func NewMissed(n uint32, now time.Time) Missed {
	return Missed{FormatVersion: FormatVersion, Type: "missed", Time: now, Count: n}
}

// WriteText renders the gap.
func (m Missed) WriteText(w io.Writer, t Text) error {
	text := "packets were missed: more came than could be read"
	if m.Count > 0 {
		text = count(int(m.Count), "packet") + " missed"
	}
	_, err := fmt.Fprintf(w, "%s  %s\n", t.faint(m.Time.Local().Format("15:04:05.000")), t.warn("... "+text))
	return err
}

package e2e

import (
	"fmt"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// silence is what is expected of connections after a change.
type silence struct {
	when     string
	what     func(*cell) *connection
	too      func(*cell) *connection // TCP speaks on it by itself; nil: there is none
	may      func(*cell, side) bool  // who speaks
	answered func(*cell, side) bool  // to whom a node answers itself; nil: to nobody
}

// attempts is how often each side speaks, so that no packet of the sibling can
// have overtaken all of those before it.
const attempts = 3

// silent has the speakers speak and then the others, and expects that everything
// is sent and that nothing arrives, of what they say or of what TCP says for
// them.
func (e *established) silent(cells []*cell, want silence) {
	e.t.Helper()
	before := e.counts()
	heard := map[*end]uint64{}
	for _, c := range cells {
		for _, s := range sides {
			heard[want.what(c).at(s)] = want.what(c).at(s).latest()
		}
	}
	for _, other := range []bool{false, true} {
		for range attempts {
			for _, c := range cells {
				speaker := c.speaker
				if other {
					speaker = speaker.other()
				}
				if want.may(c, speaker) {
					want.what(c).at(speaker).say()
				}
			}
			// TCP's siblings end with conntrack's memory of them.
			for _, c := range cells {
				if c.protocol == lab.UDP {
					c.sibling.exchange(e.t)
				}
			}
		}
	}
	after := e.counts()
	for _, c := range cells {
		if want.too != nil {
			for _, s := range sides {
				came, _ := e.counters(want.too(c), s)
				if n := after[came] - before[came]; n > 0 {
					e.t.Errorf("%s: %d packets of what was said before come to the %s %s", c.name, n, s, want.when)
				}
			}
		}
		v := want.what(c)
		for _, s := range sides {
			came, sent := e.counters(v, s)
			if v.at(s).latest() != heard[v.at(s)] {
				e.t.Errorf("%s: the %s hears the other %s", c.name, s, want.when)
			}
			if n := after[came] - before[came]; n > 0 && (want.answered == nil || !want.answered(c, s)) {
				e.t.Errorf("%s: %d packets come to the %s %s", c.name, n, s, want.when)
			}
			if n := after[sent] - before[sent]; n < attempts && want.may(c, s) && (want.answered == nil || !want.answered(c, s)) {
				e.t.Errorf("%s: the %s sends only %d packets %s", c.name, s, n, want.when)
			}
		}
	}
}

// stopped notes when the speakers' packets stopped, and expects that none passed
// that was sent after the rules were in force.
func (e *established) stopped(change tightening, cells []*cell, edit edit) {
	e.t.Helper()
	milliseconds := func(t time.Time) string {
		return fmt.Sprintf("%.1f ms", float64(t.Sub(edit.began).Microseconds())/1000)
	}
	for _, r := range ways {
		var passed, lost time.Time // the latest of all connections
		n := 0
		for _, c := range cells {
			if c.way != r {
				continue
			}
			n++
			last, first := c.talking.at(c.speaker).through(c.talking.at(c.speaker.other()))
			switch {
			case first.IsZero():
				e.t.Errorf("%s: all that is said passes", c.name)
			case last.After(edit.settled):
				e.t.Errorf("%s: what is said %v after the rules were in force passes", c.name, last.Sub(edit.settled))
			}
			if last.After(passed) {
				passed = last
			}
			if first.After(lost) {
				lost = first
			}
		}
		if n == 0 {
			continue
		}
		judge := "n1"
		if change.direction == spec.Ingress {
			judge = r.node
		}
		fmt.Fprintf(e.table, "%s\t%s\t%d\t%s\t%s\t%s\n", change.name, r.name, n, milliseconds(passed), milliseconds(lost), milliseconds(e.written(judge, edit)))
	}
}

// refuses expects that no new connection comes to the servers, and that one
// comes to the siblings', which is opened later on the same way.
func (e *established) refuses(cells []*cell) {
	e.t.Helper()
	for _, c := range cells {
		for _, v := range []*connection{c.known, c.sibling} {
			f := knock(e.t, c.protocol, e.lab.Pod("p11"), c.way.dialled(e.network, c.family, v.port))
			defer f.Close()
		}
		select {
		case <-c.sibling.strangers:
		case <-time.After(patience):
			e.t.Fatalf("%s: the sibling's server hears of no new connection", c.name)
		}
	}
	for _, c := range cells {
		if len(c.known.strangers) > 0 {
			e.t.Errorf("%s: the server hears of a new connection", c.name)
		}
	}
}

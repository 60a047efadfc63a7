package reconcile

import (
	"slices"
	"strings"
	"time"

	"github.com/poldernet/polder/internal/change"
	"github.com/poldernet/polder/overlay"
)

// What goes wrong on a host to which things happen.

// refuseWrites makes writing an object fail for a while: one that has been
// written before.
func (m *transitions) refuseWrites() {
	keys := []objectKey{rulesKey}
	for _, e := range m.events(0, EventChanged) {
		if key := keyOf(*e.Change); e.Change.Action != change.Release && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b objectKey) int { return strings.Compare(a.kind+a.name, b.kind+b.name) })
	key, times := sample(m, "object", keys), m.number("times", 1, 6)
	m.note("%v is refused %d times", key, times)
	m.do(func() { m.refused[key] = times })
}

func (m *transitions) tearDumps() {
	n := m.number("dumps", 1, 4)
	m.note("%d dumps are torn", n)
	m.do(func() { m.torn = n })
}

// overflow loses what happens, and tells of that.
func (m *transitions) overflow() {
	m.do(func() { m.deaf = true })
	m.damageNetwork()
	m.damageRules()
	m.pass(sample(m, "before the loss is told", []time.Duration{0, time.Millisecond, time.Second}))
	m.note("notifications are lost")
	m.do(func() { m.deaf = false })
	m.fail(overlay.ErrLost)
}

func (m *transitions) cutOff() {
	n := m.number("attempts", 0, 6)
	m.note("subscriptions end, and %d attempts to subscribe fail", n)
	m.do(func() { m.unopened = n })
	m.fail(errDead)
}

// raceCommit has somebody commit between the next reading and the commit.
func (m *transitions) raceCommit() {
	ours := m.number("to our table", 0, 1) == 1
	m.note("somebody is going to commit first; to our table: %t", ours)
	m.do(func() {
		m.before = func(access string) {
			if access != "commit" {
				return
			}
			m.do(func() {
				m.before = nil
				if list := m.rules.Damages(tables[0]); ours && len(list) > 0 {
					if err := m.rules.Do("nft", list[0]); err != nil {
						m.rt.Error(err)
					}
					return
				}
				m.rules.Put("kubelet", foreignTable)
			})
		}
	})
}

// kill ends the process before one of its next writes.
func (m *transitions) kill() {
	n := m.number("writes", 0, 40)
	m.note("the daemon is going to be killed after %d writes", n)
	m.do(func() { m.fuse = n })
	if m.number("at a new spec", 0, 1) == 1 {
		m.changeSpec()
	}
}

func (m *transitions) restart() {
	m.note("the daemon is restarted")
	m.end()
	m.run(DaemonOptions{})
}

// revive starts the daemon again if it has been killed.
func (m *transitions) revive() {
	select {
	case <-m.done:
		m.note("it has been killed, and is started")
		m.stop()
		m.run(DaemonOptions{})
	default:
	}
}

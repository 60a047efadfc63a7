package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
)

// foreignUnderlay restores what of foreign goes when the underlay does.
const foreignUnderlay = `; ip nexthop replace id 7 via 192.0.2.1 dev eth0; ip route replace 10.99.0.0/16 nhid 7
	ip route replace 10.98.0.0/16 via 192.0.2.1 proto static; ip route replace 10.97.0.0/16 via 192.0.2.1 table 87
	ip -6 route replace fd99::/48 via 2001:db8:2::1 proto bird`

// TestDaemonSoak lets one daemon live through everything, in any order, for as
// long as POLDER_SOAK says, while others commit to nftables and flap routes all
// the time: damage, another spec, a spec that is torn and whole by turns, the
// underlay down and up, a full disk, links by the hundred, the death and return
// of the daemons of its peers. After each the node is what its spec makes of it
// from nothing. In the end the daemon holds no more than it did after a quarter
// of the time.
func TestDaemonSoak(t *testing.T) {
	lasts := max(soaking(t), 10*time.Second)
	c := newCrew(t, damagedCluster)
	d := c.daemons["n1"]
	s := soak{crew: c, d: d, random: rand.New(rand.NewPCG(5, 6)), done: map[string]int{}}
	s.ownDisk()
	s.arrive, s.leave = c.crowd("n1", 400)
	s.noise = c.noise("n1", 100)
	// n1 is damaged; between the others nothing may be lost.
	streams := c.streams()
	began := time.Now()
	var quarter process.Usage
	s.sample(began)
	for next := began; time.Since(began) < lasts; {
		s.something()
		if time.Since(next) > lasts/40 {
			next = time.Now()
			u := s.sample(began)
			if quarter == (process.Usage{}) && time.Since(began) > lasts/4 {
				quarter = u
			}
		}
	}
	flowAll(t, streams, 10)
	s.noise.end()
	s.sample(began).ExpectNoMore(t, quarter)
	s.traffic(streams)
	s.report(time.Since(began))
}

// soak is a daemon and what was done to it.
type soak struct {
	*crew
	d             *process.Process
	random        *rand.Rand
	noise         *noise
	arrive, leave func()
	done          map[string]int
}

// ownDisk gives the daemon a small file system for its state.
func (s *soak) ownDisk() {
	s.t.Helper()
	s.d.Kill()
	dir := filepath.Join(s.dir, "n1")
	s.sh("n1", fmt.Sprintf("mkdir -p %s.old; cp -a %[1]s/. %[1]s.old; mount -t tmpfs -o size=64k tmpfs %[1]s; cp -a %[1]s.old/. %[1]s", dir))
	s.t.Cleanup(func() {
		s.d.Kill()
		s.sh("n1", "umount "+dir)
	})
	s.d.Start()
	s.d.Ready()
}

// something happens, and then all is well again.
func (s *soak) something() {
	s.t.Helper()
	things := []struct {
		name string
		do   func()
	}{
		{"damage", func() { s.breakSomething(s.random) }},
		{"damage", func() { s.breakSomething(s.random) }},
		{"damage", func() { s.breakSomething(s.random) }},
		{"change of the spec", func() { s.change("n1") }},
		{"change and damage", func() {
			s.change("n1")
			s.breakSomething(s.random)
		}},
		{"torn specs", func() {
			stop := rewrite(s.d, s.editions)
			for range 5 {
				s.sh("n1", "ip route del 10.244.3.0/24")
				s.until("n1", "ip route show 10.244.3.0/24 | grep -q nhid")
			}
			stop()
			s.d.Write(s.editions[s.at["n1"]].text)
		}},
		{"flap of the underlay", func() {
			s.sh("n1", "ip link set eth0 down")
			s.sh("n1", underlayUp+foreignUnderlay)
		}},
		{"full disk", func() {
			ballast := filepath.Join(s.dir, "n1", "ballast")
			s.sh("n1", "cat /dev/zero >"+ballast+" 2>/dev/null || true")
			s.change("n1")
			s.matches(s.d, s.editions[s.at["n1"]].spec, "a change on a full disk")
			s.sh("n1", "ip route del 10.244.3.0/24")
			s.until("n1", "ip route show 10.244.3.0/24 | grep -q nhid")
			s.sh("n1", "rm "+ballast)
		}},
		{"crowd of links", func() {
			s.arrive()
			s.breakSomething(s.random)
			s.leave()
		}},
		{"kill of a peer's daemon", func() {
			peer := s.daemons[[]string{"n2", "n3"}[s.random.IntN(2)]]
			s.change(peer.Node.Name())
			peer.Kill()
			peer.Start()
			peer.Ready()
			s.expectWhole(peer.Node.Name(), "a kill")
		}},
	}
	thing := things[s.random.IntN(len(things))]
	thing.do()
	s.done[thing.name]++
	s.noise.still(func() { s.expectWhole("n1", thing.name) })
	s.d.Content(thing.name)
}

// sample records what the daemon holds.
func (s *soak) sample(began time.Time) process.Usage {
	s.t.Helper()
	s.d.Content("a while")
	u := s.d.Usage()
	s.t.Logf("%6.0f s: %v", time.Since(began).Seconds(), u)
	return u
}

// traffic stops the streams. Those that n1 has no part in have lost nothing.
func (s *soak) traffic(streams []traffic) {
	s.t.Helper()
	var sent, lost int
	apart := slices.DeleteFunc(slices.Clone(streams), traffic.concerns1)
	for _, stream := range streams {
		if stream.concerns1() {
			out, in := stream.stop()
			sent, lost = sent+out, lost+max(0, out-1-in)
		}
	}
	s.t.Logf("between n2, n3 and the outside: %s", expectAll(s.t, apart))
	s.t.Logf("from and to n1's pods, whose paths were broken again and again: %d packets, %d lost", sent, lost)
}

// report tells what happened, and what the daemon counted.
func (s *soak) report(lasted time.Duration) {
	s.t.Helper()
	s.t.Logf("%v: %v", lasted.Round(time.Second), s.done)
	s.t.Logf("meanwhile others committed %d times to nftables, and wrote or deleted %d routes", s.noise.commits.Load(), s.noise.routes.Load())
	m := s.d.Metrics()
	for _, name := range []string{
		"polder_rounds_total", "polder_round_seconds_total", "polder_notifications_total", "polder_notifications_relevant_total",
		"polder_notifications_lost_total", "polder_specs_total", "polder_specs_rejected_total",
	} {
		for _, series := range slices.Sorted(maps.Keys(m)) {
			if series == name || strings.HasPrefix(series, name+"{") {
				s.t.Logf("%s %.6g", series, m[series])
			}
		}
	}
	repairs := map[string]float64{}
	for series, value := range m {
		if strings.HasPrefix(series, "polder_changes_total{") && strings.Contains(series, `repair="true"`) && strings.Contains(series, `result="done"`) {
			repairs[label(series, "kind")] += value
		}
	}
	s.t.Logf("repairs by kind: %v", repairs)
	lines, _, _ := s.d.Logbook.Since(0)
	var repaired []process.Line
	failures := map[string]int{}
	for _, l := range lines {
		switch {
		case l.Event == "changed" && l.Cause == "drift":
			repaired = append(repaired, l)
		case l.Event == "failed":
			failures[l.Kind]++
		}
	}
	s.t.Logf("attempts that failed, by kind: %v", failures)
	slices.SortFunc(repaired, func(a, b process.Line) int { return cmp.Compare(a.Took, b.Took) })
	if n := len(repaired); n > 0 {
		slowest := repaired[n-1]
		s.t.Logf("%d objects repaired after a notification of the kernel's: p50 %.1f ms, p99 %.1f ms, slowest %.1f ms, a %s",
			n, 1000*repaired[n/2].Took, 1000*repaired[n*99/100].Took, 1000*slowest.Took, slowest.Kind)
	}
}

// label is the value of a label in a series' name.
func label(series, name string) string {
	_, rest, _ := strings.Cut(series, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

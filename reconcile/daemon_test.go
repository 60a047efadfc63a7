package reconcile

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
)

func TestOneObjectBacksOffWhileTheOthersProceed(t *testing.T) {
	onFakeHost(t, 4, func(t *testing.T, h *fakeHost) {
		route := objectKey{"route", "10.244.2.0/24"}
		h.refused[route], h.refusal = 5, errRefused
		from, began := h.journal.Last(), time.Now()
		h.damage("ip route del 10.244.2.0/24")
		h.damage("ip route del 10.244.3.0/24")
		h.settle()
		if rest := h.plan().Changes; len(rest) != 1 || keyOf(rest[0]) != route {
			t.Fatalf("beside the route that is refused, %v is not as it should be", rest)
		}
		if c := h.Condition(); c.InSync || len(c.Failures) != 1 || !errors.Is(c.Failures[0].Err, errRefused) || c.String() != "not in sync with the spec; 1 failing" {
			t.Errorf("the daemon says %q, failures %+v", c, c.Failures)
		}
		// Other repairs go on between two attempts, and are none.
		h.pass(100 * time.Millisecond)
		h.damage("ip route del 10.244.4.0/24")
		h.settle()
		if changed := h.events(from, EventChanged); len(changed) != 2 {
			t.Errorf("two repairs were to be made beside what is refused:\n%s", h.story(from))
		}
		h.pass(10 * time.Second)
		h.inSync()
		var waits []time.Duration
		last := began
		for _, e := range h.events(from, EventFailed, EventChanged) {
			if e.Change.Name == route.name {
				waits = append(waits, e.Time.Sub(last).Round(10*time.Millisecond))
				last = e.Time
			}
		}
		ms := time.Millisecond
		if want := []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms}; !slices.Equal(waits, want) {
			t.Errorf("attempts came after %v, want %v", waits, want)
		}
	})
}

// TestForeignEventsLeaveTheFailuresAlone: there may be thousands, which are not
// to be sorted for each event.
func TestForeignEventsLeaveTheFailuresAlone(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		h.refused[objectKey{"route", "10.244.2.0/24"}], h.refusal = 1000, errRefused
		h.damage("ip route del 10.244.2.0/24")
		h.pass(time.Minute)
		before := h.Condition()
		h.do(func() { h.rules.Put("kube-proxy", nft.Table{Family: nft.IP, Name: "kube-proxy"}) })
		h.pass(10 * time.Millisecond)
		after := h.Condition()
		if after.Counters.Seen.NFTables == before.Counters.Seen.NFTables {
			t.Fatal("no event was seen")
		}
		if len(before.Failures) != 1 || len(after.Failures) != 1 || &before.Failures[0] != &after.Failures[0] {
			t.Errorf("the failures were %+v, and are %+v: another list", before.Failures, after.Failures)
		}
	})
}

// TestWhatFailsWaitsWhileNothingCanBePlanned: it is due, but no round comes so
// far as to try it; and a switch that has moved is put back by none.
func TestWhatFailsWaitsWhileNothingCanBePlanned(t *testing.T) {
	for name, hinder := range map[string]func(h *fakeHost, yes bool){
		"no address": func(h *fakeHost, yes bool) {
			if yes {
				h.network.DropAddress("eth0", underlayAddress)
			} else {
				_ = h.network.AddAddress("eth0", underlayAddress)
			}
		},
		"torn dumps": func(h *fakeHost, yes bool) {
			h.torn = 0
			if yes {
				h.torn = 1000
				h.network.DropAddress("eth0", underlayAddress) // so that there is something to read
				_ = h.network.AddAddress("eth0", underlayAddress)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
				h.refused[objectKey{"route", "10.244.2.0/24"}], h.refusal = 1000, errRefused
				h.damage("ip route del 10.244.2.0/24")
				h.settle()
				h.do(func() { hinder(h, true) })
				h.damage("echo 1 >/proc/sys/net/ipv6/conf/cni0/accept_ra")
				h.settle()
				before := h.rounds()
				h.pass(time.Minute)
				if n := h.rounds() - before; n > 10 {
					t.Errorf("%d rounds in a minute", n)
				}
				h.refused = nil
				h.do(func() { hinder(h, false) })
				h.pass(retryMost)
				h.inSync()
			})
		})
	}
}

// TestRulesAreTriedTogether: they are one unit, and a new difference among them
// does not wait for an old one, nor does it make the daemon run in circles.
func TestRulesAreTriedTogether(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		h.refused[rulesKey], h.refusal = 8, errRefused
		h.drop()
		h.pass(10 * time.Second)
		from, before := h.journal.Last(), h.rounds()
		h.do(func() {
			h.rules.Put("nft", nft.Table{Family: nft.INet, Name: nft.TableName, Counters: []string{"theirs"}})
		})
		h.settle()
		if n := h.rounds() - before; n != 1 || len(h.events(from, EventFailed)) == 0 {
			t.Errorf("%d rounds, want one with an attempt:\n%s", n, h.story(from))
		}
		h.pass(time.Minute)
		h.inSync()
		if n := h.rounds() - before; n > 10 {
			t.Errorf("%d rounds until the rules were written", n)
		}
	})
}

// TestALinkEventHurriesWhatWaits: what could not be written may be possible
// when a link is another.
func TestALinkEventHurriesWhatWaits(t *testing.T) {
	onFakeHost(t, 2, func(_ *testing.T, h *fakeHost) {
		h.do(func() { h.network.SetUp("eth0", false) })
		h.refused[objectKey{"route", "10.244.2.0/24"}], h.refusal = 1000, errRefused
		h.damage("ip route del 10.244.2.0/24")
		h.pass(time.Minute)
		h.refused = nil
		h.do(func() { h.network.SetUp("eth0", true) })
		h.settle()
		h.inSync()
	})
}

func TestABurstIsOneRound(t *testing.T) {
	onFakeHost(t, 50, func(t *testing.T, h *fakeHost) {
		before, relevant := h.rounds(), h.Condition().Counters.Relevant.RTNetlink
		for range 49 {
			h.damage("ip route del")
		}
		h.settle()
		h.inSync()
		if n := h.rounds() - before; n != 1 {
			t.Errorf("49 events at once led to %d rounds", n)
		}
		if seen := h.Condition().Counters.Relevant.RTNetlink - relevant; seen != 49 {
			t.Errorf("of the events, 49 of others and those of the repairs, %d were found to be relevant", seen)
		}
	})
}

// TestASteadyStreamOfEventsDelaysNoRepair: a round waits for quiet, but not for
// ever.
func TestASteadyStreamOfEventsDelaysNoRepair(t *testing.T) {
	onFakeHost(t, 10, func(t *testing.T, h *fakeHost) {
		from, before := h.journal.Last(), h.rounds()
		other := netip.MustParsePrefix("198.51.100.7/32")
		for i := range 400 {
			if i%50 == 0 {
				h.damage("ip route del")
			}
			h.do(func() {
				h.network.DropAddress("eth0", other)
				if err := h.network.AddAddress("eth0", other); err != nil {
					t.Fatal(err)
				}
			})
			h.pass(roundQuiet / 2)
		}
		h.settle()
		h.inSync()
		repairs := h.events(from, EventChanged)
		for _, e := range repairs {
			if e.Took > roundMost+roundQuiet {
				t.Fatalf("a repair took %v", e.Took)
			}
		}
		if len(repairs) != 8 {
			t.Errorf("%d repairs, want 8", len(repairs))
		}
		if n := h.rounds() - before; n > uint64(200*time.Millisecond/roundMost)+2 {
			t.Errorf("200 ms of events led to %d rounds", n)
		}
	})
}

// TestAFightTakesAThirdOfTheTime: somebody removes an object each time that it
// is there, and a round takes long.
func TestAFightTakesAThirdOfTheTime(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		h.before = func(access string) {
			if access == "apply" {
				elapse(50 * time.Millisecond)
			}
		}
		before, began := h.Condition().Counters.RoundTime, time.Now()
		for time.Since(began) < 2*time.Minute {
			if h.plan().Empty() {
				h.damage("ip route del 10.244.3.0/24")
			}
			h.pass(20 * time.Millisecond)
		}
		took := h.Condition().Counters.RoundTime - before
		if most := time.Since(began)*roundShare/1e6 + roundBurst*time.Microsecond + time.Second; took > most {
			t.Errorf("rounds took %v of %v", took, time.Since(began))
		} else if took < most*8/10 {
			t.Errorf("rounds took no more than %v of %v", took, time.Since(began))
		}
		h.pass(time.Second)
		h.inSync()
	})
}

func TestASysctlIsSeenWithinASecond(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		h.pass(10 * time.Second)
		from, before := h.journal.Last(), h.rounds()
		h.damage("echo 1 >/proc/sys/net/ipv6/conf/cni0/accept_ra")
		h.pass(sysctlsEvery + roundMost)
		h.inSync()
		if drift := h.events(from, EventDrift); len(drift) != 1 || drift[0].Cause != CauseSysctl || h.rounds() != before+1 {
			t.Errorf("want one round, because of a sysctl:\n%s", h.story(from))
		}
	})
}

// TestWhatNobodyAnnouncedIsFoundByTheCheck: notifications are lost, and not
// even that is told.
// TestTheEchoOfASwitchIsNoDrift: the kernel announces forwarding, also when it
// is us who write it.
func TestTheEchoOfASwitchIsNoDrift(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		before, relevant := h.rounds(), h.Condition().Counters.Relevant.RTNetlink
		h.damage("echo 0 >/proc/sys/net/ipv4/ip_forward")
		h.settle()
		h.inSync()
		c := h.Condition().Counters
		// The switch of all, and with it those of the two links.
		if rounds, relevant := h.rounds()-before, c.Relevant.RTNetlink-relevant; rounds != 1 || relevant != 3 {
			t.Errorf("%d rounds because of %d notifications:\n%s", rounds, relevant, h.story(0))
		}
	})
}

func TestWhatNobodyAnnouncedIsFoundByTheCheck(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		h.do(func() { h.deaf = true })
		h.damage("ip route del 10.244.2.0/24")
		h.drop()
		h.pass(checkEvery - time.Second)
		if h.plan().Empty() {
			t.Fatal("something else repaired it")
		}
		from := h.journal.Last()
		h.pass(2 * time.Second)
		h.inSync()
		if drift := h.events(from, EventDrift); len(drift) != 1 || drift[0].Cause != CauseCheck {
			t.Errorf("want one round, of the check:\n%s", h.story(from))
		}
	})
}

func TestQuietCostsNothing(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		h.pass(time.Second)
		clear(h.count)
		before := h.rounds()
		h.pass(4 * time.Minute)
		if n := h.count["sysctls"]; h.rounds() != before || len(h.count) != 1 || n < 239 || n > 241 {
			t.Errorf("in four quiet minutes there were %d rounds, and accesses %v", h.rounds()-before, h.count)
		}
	})
}

func TestForeignCommitsOnlyMoveTheGuard(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		before := h.rounds()
		clear(h.count)
		for range 1000 {
			h.do(func() { h.rules.Put("kubelet", nft.Table{Family: nft.IP, Name: "kube-proxy"}) })
			h.pass(time.Millisecond)
		}
		if h.rounds() != before || h.count["rules"]+h.count["read"]+h.count["refresh"] > 0 {
			t.Errorf("commits by others led to %d rounds, and accesses %v", h.rounds()-before, h.count)
		}
		if _, gen := h.rules.Read(); h.view.gen != gen {
			t.Errorf("the guard is generation %d, and the kernel is in %d", h.view.gen, gen)
		}
		if c := h.Condition().Counters; c.Seen.NFTables < 1000 || c.Relevant.NFTables != 0 {
			t.Errorf("commits seen and relevant: %d and %d", c.Seen.NFTables, c.Relevant.NFTables)
		}
	})
}

// TestAStalePlanIsMadeAgain: somebody commits to our table between the reading
// and the commit.
func TestAStalePlanIsMadeAgain(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		faster := 2
		h.before = func(access string) {
			if access == "commit" && faster > 0 {
				faster--
				h.drop()
				h.do(func() {
					h.rules.Put("nft", nft.Table{Family: nft.INet, Name: nft.TableName, Counters: []string{"theirs"}})
				})
			}
		}
		from, began := h.journal.Last(), time.Now()
		h.drop()
		h.settle()
		h.inSync()
		if failed := h.events(from, EventFailed, EventOutOfSync); len(failed) > 0 || faster > 0 {
			t.Errorf("that somebody was faster is no failure:\n%s", h.story(from))
		}
		if all := h.events(from, EventChanged); all[len(all)-1].Time.Sub(began) > 10*time.Millisecond {
			t.Errorf("it took %v to plan again", all[len(all)-1].Time.Sub(began))
		}
		if drift := h.events(from, EventDrift); !strings.Contains(drift[0].Message, "nft") {
			t.Errorf("nobody is named as having changed the table: %q", drift[0].Message)
		}
	})
}

// TestSomebodyElseWritesTheSameObject: what was written is not there when it is
// looked at.
func TestSomebodyElseWritesTheSameObject(t *testing.T) {
	for _, c := range []struct {
		times int // that the other is faster
		waits []time.Duration
	}{
		{times: 1, waits: []time.Duration{0, 0}},
		{times: 4, waits: []time.Duration{0, 0, 200, 400, 800}},
	} {
		onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
			wrote := false
			h.before = func(access string) {
				if access == "refresh" && wrote && c.times > 0 {
					c.times--
					wrote = false
					h.damage("ip route del 10.244.2.0/24")
				}
				wrote = wrote || access == "apply"
			}
			from, last := h.journal.Last(), time.Now()
			// The fight itself is not announced: else each of its damages
			// is an event of its own.
			h.damage("ip route del 10.244.2.0/24")
			synctest.Wait()
			h.do(func() { h.deaf = true })
			h.pass(10 * time.Second)
			h.inSync()
			var waits []time.Duration
			for _, e := range h.events(from, EventChanged) {
				waits = append(waits, e.Time.Sub(last).Round(10*time.Millisecond)/time.Millisecond)
				last = e.Time
			}
			if !slices.Equal(waits, c.waits) {
				t.Errorf("it was written after %v ms, want %v\n%s", waits, c.waits, h.story(from))
			}
		})
	}
}

func TestATornDumpIsReadAgain(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		h.torn = 2
		from := h.journal.Last()
		h.damage("ip route del 10.244.2.0/24")
		h.settle()
		if c := h.Condition(); c.InSync || len(c.Failures) != 1 || c.Failures[0].Change.Kind != "node" {
			t.Errorf("a reading that fails is a failure of the node; the daemon says %q, %+v", c, c.Failures)
		}
		h.pass(time.Second)
		h.inSync()
		told := h.events(from, EventError, EventRecovered)
		if len(told) != 3 || told[1].Type != EventError || told[2].Type != EventRecovered || told[2].Object != "node n1" {
			t.Errorf("want two errors, and that they are over:\n%s", h.story(from))
		}
	})
}

// TestWhatWasNotVerifiedIsReadAgain: of what was written nothing is known until
// it has been read, and of the rest no more than that the reading failed.
func TestWhatWasNotVerifiedIsReadAgain(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		h.before = func(access string) {
			if access == "apply" {
				h.before = nil
				h.torn = 1
				h.do(func() { h.deaf = true })
				h.damage("bridge fdb del")
			}
		}
		h.damage("ip route del 10.244.2.0/24")
		h.settle()
		if c := h.Condition(); c.InSync || len(c.Failures) != 1 || c.Failures[0].Change.Kind != "node" {
			t.Errorf("nothing was verified, and the daemon says %q, %+v", c, c.Failures)
		}
		h.pass(time.Second)
		h.inSync()
	})
}

// TestTheUnderlayGoesAndComes: without it the spec comes to nothing, which is
// repaired by the notification that it is back, and not by the next attempt.
func TestTheUnderlayGoesAndComes(t *testing.T) {
	lose := map[string]struct{ go_, come func(n *overlay.Model) }{
		"address": {
			func(n *overlay.Model) { n.DropAddress("eth0", underlayAddress) },
			func(n *overlay.Model) { _ = n.AddAddress("eth0", underlayAddress) },
		},
		"link": {
			func(n *overlay.Model) { n.Unplug("eth0") },
			func(n *overlay.Model) {
				n.Plug("eth0")
				_ = n.AddAddress("eth0", underlayAddress)
			},
		},
	}
	for name, c := range lose {
		t.Run(name, func(t *testing.T) {
			onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
				h.do(func() { c.go_(h.network) })
				h.pass(5 * time.Minute)
				if c := h.Condition(); c.InSync || len(c.Failures) != 1 || c.Failures[0].Change.Kind != "node" || !strings.Contains(c.Failures[0].Err.Error(), "192.0.2.11") {
					t.Fatalf("the daemon says %q, %+v", c, c.Failures)
				}
				if attempts := h.Condition().Failures[0].Attempts; attempts < 10 || attempts > 25 {
					t.Errorf("%d attempts in five minutes", attempts)
				}
				h.do(func() { c.come(h.network) })
				h.settle()
				h.inSync()
			})
		})
		t.Run(name+" at the start", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost(t, nodes(3))
				defer h.end()
				c.go_(h.network)
				h.run(DaemonOptions{})
				h.pass(5 * time.Minute)
				h.do(func() { c.come(h.network) })
				h.settle()
				h.inSync()
			})
		})
	}
}

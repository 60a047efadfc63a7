package reconcile

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/overlay"
)

func TestTheLastGoodSpecStaysInForce(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		good, from := h.source.current, h.journal.Last()
		broken := parsed(t, "network {")
		for range 3 {
			h.source.write(broken)
			h.settle()
		}
		if c := h.Condition(); !c.InSync || c.Spec.Err == nil || c.Counters.Rejected != 1 || c.String() != "in sync with the spec; the spec's files have errors" {
			t.Errorf("the daemon says %q, of the spec %+v, and rejected %d", c, c.Spec, c.Counters.Rejected)
		}
		if told := h.events(from, EventSpecRejected, EventSpecLoaded); len(told) != 1 {
			t.Errorf("the same error is to be told once:\n%s", h.story(from))
		}
		h.damage("ip route del 10.244.2.0/24")
		h.settle()
		h.source.current = good
		h.inSync()

		// A daemon that starts with broken files takes up what was in force.
		h.source.current = broken
		h.end()
		h.damage("ip route del 10.244.3.0/24")
		h.run(DaemonOptions{})
		h.settle()
		if c := h.Condition(); !c.InSync || !c.Spec.Restored || c.Spec.Err == nil {
			t.Errorf("the daemon says %q, of the spec %+v", c, c.Spec)
		}
		before := h.rounds()
		h.source.write(good)
		h.settle()
		h.inSync()
		if c := h.Condition(); c.Spec.Restored || c.Spec.Err != nil || h.rounds() != before {
			t.Errorf("with the files mended, the daemon says of the spec %+v, after %d rounds", c.Spec, h.rounds()-before)
		}
		h.source.write(parsed(t, nodes(5)))
		h.settle()
		h.inSync()
	})
}

// TestReadyWhenTheNetworkIsUp: the service manager is told once, and not before
// everything is there.
func TestReadyWhenTheNetworkIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(3))
		defer h.end()
		h.refused[objectKey{"route", "10.244.2.0/24"}], h.refusal = 3, errRefused
		h.run(DaemonOptions{})
		h.pass(500 * time.Millisecond)
		if slices.Contains(h.told, "READY=1") {
			t.Fatalf("the service manager was told %q, while a route is missing", h.told)
		}
		if c := h.Condition(); c.Ready || c.InSync {
			t.Errorf("the condition is %+v", c)
		}
		h.pass(10 * time.Second)
		h.inSync()
		h.damage("ip route del 10.244.3.0/24")
		h.settle()
		h.end()
		want := []string{"STATUS=no spec is in force", "STATUS=not in sync with the spec", "STATUS=not in sync with the spec; 1 failing", "READY=1", "STATUS=in sync with the spec", "STOPPING=1"}
		if !slices.Equal(h.told, want) {
			t.Errorf("the service manager was told %q, want %q", h.told, want)
		}
	})
}

// TestTheWatchdogIsFedByTheLoopAlone: a daemon that hangs is restarted.
func TestTheWatchdogIsFedByTheLoopAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2))
		defer h.end()
		h.run(DaemonOptions{Watchdog: 3 * time.Second})
		fed := func() (n int) {
			for _, s := range h.told {
				if s == "WATCHDOG=1" {
					n++
				}
			}
			return n
		}
		h.pass(time.Minute)
		if n := fed(); n < 60 || n > 62 {
			t.Errorf("in a minute, the watchdog of three seconds was fed %d times", n)
		}
		h.before = func(access string) {
			if access == "refresh" {
				h.before = nil
				elapse(10 * time.Second)
			}
		}
		h.damage("ip route del 10.244.2.0/24")
		h.pass(time.Second)
		before := fed()
		h.pass(8 * time.Second)
		if n := fed() - before; n != 0 {
			t.Errorf("while the loop hung, the watchdog was fed %d times", n)
		}
		h.pass(3 * time.Second)
		if fed() == before {
			t.Error("the loop goes on, and the watchdog is not fed")
		}
		h.inSync()
	})
}

func TestLostNotificationsAreMadeUpFor(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		from, streams := h.journal.Last(), len(h.streams)
		h.do(func() { h.deaf = true })
		h.damage("ip route del 10.244.2.0/24")
		h.drop()
		h.settle()
		if h.plan().Empty() {
			t.Fatal("the damage was noticed")
		}
		h.do(func() { h.deaf = false })
		h.fail(overlay.ErrLost)
		h.settle()
		h.inSync()
		if drift := h.events(from, EventDrift); len(drift) != 1 || drift[0].Cause != CauseLost {
			t.Errorf("want one round, of the loss:\n%s", h.story(from))
		}
		if c := h.Condition(); c.Counters.Lost != 2 || len(h.streams) != streams {
			t.Errorf("%d losses, %d streams, want two of both", c.Counters.Lost, len(h.streams))
		}
		h.damage("ip route del 10.244.3.0/24")
		h.settle()
		h.inSync()
	})
}

// TestADeadSubscriptionIsOpenedAgain, with backoff, and what happens meanwhile
// is found by reading.
func TestADeadSubscriptionIsOpenedAgain(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		from, began := h.journal.Last(), time.Now()
		h.unopened = 10 // five attempts for either of two
		h.fail(errDead)
		h.pass(50 * time.Millisecond)
		h.damage("ip route del 10.244.2.0/24")
		h.drop()
		h.pass(100 * time.Millisecond)
		h.inSync()
		if len(h.streams) != 0 {
			t.Fatalf("%d streams are open", len(h.streams))
		}
		h.pass(4 * time.Second)
		var after []time.Duration
		for _, e := range h.events(from, EventError) {
			after = append(after, e.Time.Sub(began)/time.Millisecond)
		}
		// Each tells of its end, and of five attempts that fail.
		if want := []time.Duration{0, 0, 0, 0, 100, 100, 300, 300, 700, 700, 1500, 1500}; !slices.Equal(after, want) {
			t.Errorf("errors after %v ms, want %v\n%s", after, want, h.story(from))
		}
		if len(h.streams) != 2 {
			t.Errorf("%d streams are open, want 2", len(h.streams))
		}
		h.damage("ip route del 10.244.3.0/24")
		h.settle()
		h.inSync()
	})
}

// TestASubscriptionThatEndsEachTime: to open it succeeds, and is of no use.
func TestASubscriptionThatEndsEachTime(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		h.pass(retryMost)
		from, before := h.journal.Last(), h.rounds()
		h.dying = true
		h.fail(errDead)
		h.pass(10 * time.Second)
		// Each of two: three at once, and after 0.1, 0.3, 0.7, 1.5, 3.1 and 6.3 s.
		if n := len(h.events(from, EventError)); n != 18 {
			t.Errorf("%d errors in 10 s, want 18\n%s", n, h.story(from))
		}
		if n := h.rounds() - before; n > 18 {
			t.Errorf("%d rounds in 10 s", n)
		}
		h.dying = false
		h.pass(10 * time.Second)
		h.damage("ip route del 10.244.3.0/24")
		h.settle()
		h.inSync()
	})
}

// TestADaemonIsHeldAfterDestroy: what was removed by command stays away.
func TestADaemonIsHeldAfterDestroy(t *testing.T) {
	for _, mode := range []Mode{ModeDestroy, ModeRelease} {
		t.Run(string(mode), func(t *testing.T) {
			onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
				h.command(mode)
				if c := h.Condition(); c.InSync || c.Held != mode || c.String() != "held since "+string(mode)+": nothing is repaired until an apply" {
					t.Errorf("the daemon says %q", c)
				}
				before := h.rounds()
				clear(h.count)
				h.do(func() { h.network.SetUp("eth0", false) })
				h.do(func() { h.network.SetUp("eth0", true) })
				h.source.write(parsed(t, nodes(4)))
				h.fail(overlay.ErrLost)
				h.pass(time.Hour)
				if h.rounds() != before || len(h.count) > 0 {
					t.Errorf("a daemon that is held made %d rounds, and accesses %v", h.rounds()-before, h.count)
				}
				h.command(ModeApply)
				h.settle()
				h.inSync()
				h.damage("ip route del 10.244.4.0/24")
				h.settle()
				h.inSync()
			})
		})
	}
}

// command does what a command line does.
func (h *fakeHost) command(mode Mode) {
	h.t.Helper()
	plan, err := h.Daemon.Plan(context.Background(), mode)
	if err != nil {
		h.t.Fatal(err)
	}
	result, err := h.Apply(context.Background(), mode, plan.ID(), func(Outcome) {})
	if err != nil || len(result.Failed())+len(result.Remaining) > 0 {
		h.t.Fatalf("%s: %v, failed %v, remaining %v", mode, err, result.Failed(), result.Remaining)
	}
}

func TestAPlanThatIsNoLongerTrueIsNotCarriedOut(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		plan, err := h.Daemon.Plan(t.Context(), ModeDestroy)
		if err != nil {
			t.Fatal(err)
		}
		h.source.write(parsed(t, nodes(4)))
		h.settle()
		if _, err := h.Apply(t.Context(), ModeDestroy, plan.ID(), func(Outcome) {}); !errors.Is(err, ErrPlanChanged) {
			t.Errorf("the error is %v, want %v", err, ErrPlanChanged)
		}
		h.inSync()
	})
}

// TestNobodyWaitsForADaemonThatHasEnded: neither one who comes later, nor one
// who came while it was busy.
func TestNobodyWaitsForADaemonThatHasEnded(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		h.before = func(access string) {
			if access == "refresh" {
				elapse(10 * time.Second)
			}
		}
		h.damage("ip route del 10.244.2.0/24")
		h.pass(time.Second)
		asked := make(chan error, 1)
		go func() { asked <- h.Ping(t.Context()) }()
		h.pass(time.Second)
		h.end()
		if err := <-asked; !errors.Is(err, ErrStopped) && err != nil {
			t.Errorf("one who asked while the daemon ended got %v", err)
		}
		if err := h.Ping(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("one who asked afterwards got %v, want %v", err, ErrStopped)
		}
	})
}

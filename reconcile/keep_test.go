package reconcile

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// TestASpecThatCouldNotBeKept: while the state directory cannot be written, it
// fails, and nothing else does; it is tried ever less often, and once it can be
// written it holds the spec in force.
func TestASpecThatCouldNotBeKept(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		// A directory in the place of a file is in the way of root, too.
		obstacle := unfinished(snapshotFile(h.dir))
		if err := os.Mkdir(obstacle, 0o700); err != nil {
			t.Fatal(err)
		}
		from := h.journal.Last()
		h.source.write(parsed(t, nodes(3)))
		h.settle()
		if c := h.Condition(); !c.InSync || len(c.Failures) != 1 || c.Failures[0].Change.Kind != "state directory" {
			t.Fatalf("want nothing but a failure of the state directory; the daemon says %q, %+v\n%s", c, c.Failures, h.story(from))
		}
		if rest := h.plan(); !rest.Empty() {
			t.Errorf("and the kernel lacks %v", rest.Changes)
		}
		for range 20 { // rounds, in which it is not tried out of turn
			h.damage("ip route del 10.244.2.0/24")
			h.pass(1500 * time.Millisecond)
		}
		if attempts := h.Condition().Failures[0].Attempts; attempts < 5 || attempts > 10 {
			t.Errorf("%d attempts in 30 s", attempts)
		}
		if err := os.Remove(obstacle); err != nil {
			t.Fatal(err)
		}
		h.pass(retryMost)
		h.inSync()
		kept, err := lastGood(h.dir, h.Daemon.options.Source.Path, "n1")
		if err != nil || len(kept.Spec.Nodes) != 3 {
			t.Errorf("what a restart would find is another spec: %v %v", kept, err)
		}
	})
}

// TestWhatBreaksWhileARoundLooksAgain: an object that goes while a round
// verifies the repair of another is drift, and not something that a round wrote
// and that did not stay.
func TestWhatBreaksWhileARoundLooksAgain(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		applied, broken := false, false
		h.before = func(access string) {
			if access == "refresh" && applied && !broken {
				broken = true
				h.damage("ip route del 10.244.3.0/24")
			}
			applied = applied || access == "apply"
		}
		from := h.journal.Last()
		h.damage("ip route del 10.244.2.0/24")
		h.settle()
		if !broken {
			t.Fatal("nothing was broken meanwhile")
		}
		h.inSync()
		if failed := h.events(from, EventFailed); len(failed) > 0 {
			t.Errorf("it says that it failed:\n%s", h.story(from))
		}
		if changed := h.events(from, EventChanged); len(changed) != 2 || changed[1].Time.Sub(changed[0].Time) > 2*roundMost {
			t.Errorf("both were to be repaired, one right after the other:\n%s", h.story(from))
		}
	})
}

// TestMemoryOutlivesItsFile: a daemon knows what it has changed also when the
// file with it is damaged, repairs all the same, and puts it back.
func TestMemoryOutlivesItsFile(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		const forwarding = "net/ipv4/ip_forward"
		if err := os.WriteFile(memoryFile(h.dir), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.damage("ip route del 10.244.2.0/24")
		h.settle()
		if c := h.Condition(); !c.InSync || len(c.Failures) > 0 {
			t.Fatalf("the daemon says %q, failures %+v", c, c.Failures)
		}
		if m, err := loadMemory(h.dir); err != nil || m.Sysctls[forwarding].Before != "0" {
			t.Errorf("a restart would remember %+v, %v", m, err)
		}
		h.command(ModeDestroy)
		if now, err := (fakeNetwork{h.fakeKernel}).Sysctls([]string{forwarding}); err != nil || now[forwarding] != "0" {
			t.Errorf("after destroy %s is %q, %v", forwarding, now[forwarding], err)
		}
	})
}

// TestWhoseSpecIsTakenUp: with broken files a daemon takes up the spec that was
// in force, but not one of other files, or one that a destroy has ended.
func TestWhoseSpecIsTakenUp(t *testing.T) {
	onFakeHost(t, 2, func(t *testing.T, h *fakeHost) {
		path := h.Daemon.options.Source.Path
		if _, err := lastGood(h.dir, path, "n1"); err != nil {
			t.Fatal(err)
		}
		if _, err := lastGood(h.dir, path+".other", "n1"); err == nil || !strings.Contains(err.Error(), path+".other") {
			t.Errorf("for other files: %v", err)
		}
		h.command(ModeDestroy)
		if _, err := lastGood(h.dir, path, "n1"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after destroy: %v", err)
		}
	})
}

// TestInSyncThroughARepair: a repair of which one round leaves a rest to the
// next is not told of as a time out of sync.
func TestInSyncThroughARepair(t *testing.T) {
	onFakeHost(t, 3, func(t *testing.T, h *fakeHost) {
		broken := 0
		h.before = func(access string) {
			if access == "refresh" && broken == 1 { // the reading that verifies
				broken++
				h.damage("ip route del 10.244.3.0/24")
			}
			if access == "apply" && broken == 0 {
				broken++
			}
		}
		from := h.journal.Last()
		h.damage("ip route del 10.244.2.0/24")
		h.settle()
		h.before = nil
		h.inSync()
		if broken != 2 {
			t.Fatal("nothing broke while the repair was verified")
		}
		if told := h.events(from, EventOutOfSync, EventInSync); len(told) > 0 {
			t.Errorf("told of %d times out of sync and in sync:\n%s", len(told), h.story(from))
		}
	})
}

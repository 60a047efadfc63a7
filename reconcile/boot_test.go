package reconcile

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/closed"
	"github.com/poldernet/polder/policy/spoof"
	"github.com/poldernet/polder/spec"
)

// onBootHost runs a test on a host whose daemon keeps the ruleset in force.
func onBootHost(t *testing.T, test func(t *testing.T, h *fakeHost, dir string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "polder")
		h := newFakeHost(t, nodes(2))
		defer h.end()
		h.run(DaemonOptions{BootDir: dir})
		h.settle()
		h.inSync()
		test(t, h, dir)
	})
}

// keeps fails the test unless a boot would load what the fake kernel holds, or
// what it does not, where same is false.
func (h *fakeHost) keeps(dir string, same bool) {
	h.t.Helper()
	kept, err := keptRuleset(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	now, _ := h.rules.Read(tables...)
	if len(now) == 0 || nft.Diff(kept.Ruleset, now).Empty() != same {
		h.t.Errorf("a boot would load\n%s\nand the kernel holds\n%s", kept.Ruleset, now)
	}
}

// TestTheRulesetIsKept: at once when it is in force, not more often than it is
// good for a disk, and when the daemon ends.
func TestTheRulesetIsKept(t *testing.T) {
	onBootHost(t, func(t *testing.T, h *fakeHost, dir string) {
		h.keeps(dir, true)
		h.source.write(parsed(t, nodes(3)))
		h.settle()
		h.inSync()
		h.keeps(dir, false)
		h.pass(keepEvery)
		h.keeps(dir, true)
		h.source.write(parsed(t, nodes(4)))
		h.settle()
		h.keeps(dir, false)
		h.end()
		h.keeps(dir, true)
	})
}

// TestWhatIsNotInForceIsNotKept: a ruleset that the kernel refuses is none that
// was in force before the reboot.
func TestWhatIsNotInForceIsNotKept(t *testing.T) {
	onBootHost(t, func(t *testing.T, h *fakeHost, dir string) {
		h.do(func() { h.refused[rulesKey], h.refusal = 1000, errRefused })
		h.source.write(parsed(t, nodes(3)))
		h.pass(4 * keepEvery)
		if h.Condition().InSync {
			t.Fatal("it is in sync all the same")
		}
		h.keeps(dir, true)
		h.do(func() { h.refused[rulesKey] = 0 })
		h.pass(retryMost + keepEvery)
		h.inSync()
		h.keeps(dir, true)
	})
}

// TestTheRulesetCannotBeKept: that fails, is tried ever less often and told, and
// holds up nothing.
func TestTheRulesetCannotBeKept(t *testing.T) {
	onBootHost(t, func(t *testing.T, h *fakeHost, dir string) {
		// A directory in the place of a file is in the way of root, too.
		obstacle := unfinished(rulesetFile(dir))
		if err := os.Mkdir(obstacle, 0o700); err != nil {
			t.Fatal(err)
		}
		from := h.journal.Last()
		h.source.write(parsed(t, nodes(3)))
		h.pass(2 * retryMost)
		c := h.Condition()
		if !c.InSync || len(c.Failures) != 1 || c.Failures[0].Change.Kind != "boot directory" {
			t.Fatalf("want nothing but a failure of the boot directory; the daemon says %q, %+v\n%s", c, c.Failures, h.story(from))
		}
		if n := c.Failures[0].Attempts; n < 5 || n > 12 || len(h.events(from, EventFailed)) != n {
			t.Errorf("%d attempts in a minute\n%s", n, h.story(from))
		}
		if rounds := h.rounds(); rounds > 10 {
			t.Errorf("%d rounds", rounds)
		}
		h.keeps(dir, false)
		if err := os.Remove(obstacle); err != nil {
			t.Fatal(err)
		}
		h.pass(retryMost)
		h.inSync()
		h.keeps(dir, true)
	})
}

// TestNothingIsKeptAfterDestroy: a reboot brings no rules back that a command
// removed, until they are wanted again.
func TestNothingIsKeptAfterDestroy(t *testing.T) {
	for _, mode := range []Mode{ModeDestroy, ModeRelease} {
		t.Run(string(mode), func(t *testing.T) {
			onBootHost(t, func(t *testing.T, h *fakeHost, dir string) {
				h.source.write(parsed(t, nodes(3))) // which is not kept yet
				h.settle()
				h.command(mode)
				h.pass(2 * keepEvery)
				if _, err := keptRuleset(dir); !errors.Is(err, ErrNothingKept) {
					t.Errorf("a boot finds %v", err)
				}
				h.command(ModeApply)
				h.pass(2 * keepEvery)
				h.keeps(dir, true)
			})
		})
	}
}

// TestAStopRightAfterAnApply: what a command put into force is kept, although no
// round has come since.
func TestAStopRightAfterAnApply(t *testing.T) {
	onBootHost(t, func(t *testing.T, h *fakeHost, dir string) {
		h.command(ModeDestroy)
		h.settle()
		h.command(ModeApply)
		h.end()
		if _, err := keptRuleset(dir); err != nil {
			t.Errorf("a boot finds %v", err)
		}
	})
}

// TestDestroyWhileTheDiskIsSlow: a ruleset that is on its way to the disk when
// destroy comes does not stay there.
func TestDestroyWhileTheDiskIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		h := newFakeHost(t, nodes(2))
		h.open(DaemonOptions{BootDir: dir})
		plan, err := h.Daemon.plan(t.Context(), ModeDestroy)
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan struct{})
		h.keeper.writing = written
		go func() {
			defer close(written)
			<-time.After(time.Second)
			if err := keepRuleset(dir, nft.Ruleset{{Family: nft.INet, Name: nft.TableName}}); err != nil {
				t.Error(err)
			}
		}()
		if _, err := h.Daemon.command(t.Context(), plan, func(Outcome) {}); err != nil {
			t.Fatal(err)
		}
		<-written
		if _, err := keptRuleset(dir); !errors.Is(err, ErrNothingKept) {
			t.Errorf("a boot finds %v", err)
		}
	})
}

// TestBootOnAFakeKernel: what was kept is enforced, as it was, and a daemon that
// comes later has nothing to write.
func TestBootOnAFakeKernel(t *testing.T) {
	onBootHost(t, func(t *testing.T, h *fakeHost, dir string) {
		h.end()
		before, _ := h.rules.Read(tables...)
		h.drop()
		kept, err := keptRuleset(dir)
		if err != nil {
			t.Fatal(err)
		}
		k := fakeRuleset{h.fakeKernel}
		if err := enforce(t.Context(), kept.Ruleset, k, k); err != nil {
			t.Fatal(err)
		}
		if after, _ := h.rules.Read(tables...); !nft.Diff(before, after).Empty() {
			t.Errorf("it is now\n%s", after)
		}
		commits := h.count["commit"]
		h.run(DaemonOptions{BootDir: dir})
		h.settle()
		h.inSync()
		if h.count["commit"] != commits {
			t.Errorf("the daemon wrote rules that were there\n%s", h.story(0))
		}
	})
}

// TestBootTouchesNothingButOurs: a file that somebody has made to hold another
// table is refused as a whole.
func TestBootTouchesNothingButOurs(t *testing.T) {
	dir := t.TempDir()
	rs := nft.Ruleset{{Family: nft.INet, Name: nft.TableName}, {Family: nft.IP, Name: "filter"}}
	if err := keepRuleset(dir, rs); err != nil {
		t.Fatal(err)
	}
	if kept, err := keptRuleset(dir); err == nil || !strings.Contains(err.Error(), "table ip filter is not polder's") {
		t.Errorf("got %+v, %v", kept, err)
	}
}

// TestKeptTwice: what the file holds already is not written again, and no
// ruleset is no file.
func TestKeptTwice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "polder")
	stat := func() os.FileInfo {
		info, err := os.Stat(rulesetFile(dir))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	keep := func(rs nft.Ruleset) {
		if err := keepRuleset(dir, rs); err != nil {
			t.Fatal(err)
		}
	}
	keep(nil) // there is no directory yet
	rs := nft.Ruleset{{Family: nft.INet, Name: nft.TableName, Counters: []string{"a"}}}
	keep(rs)
	first := stat()
	if first.Mode() != 0o600 {
		t.Errorf("its mode is %v", first.Mode())
	}
	keep(rs)
	if !os.SameFile(first, stat()) {
		t.Error("it was written again")
	}
	rs[0].Counters = []string{"b"}
	keep(rs)
	if os.SameFile(first, stat()) {
		t.Error("it was not replaced by a new one")
	}
	keep(nil)
	if _, err := keptRuleset(dir); !errors.Is(err, ErrNothingKept) {
		t.Errorf("no ruleset gives %v", err)
	}
}

// isolating is a ruleset in which an endpoint is isolated.
func isolating() nft.Ruleset {
	a := netip.MustParseAddr("10.244.1.5")
	sp := &spec.Spec{Endpoints: []*spec.Endpoint{{Name: "a", Node: "n1", Interface: "veth1", Addresses: []netip.Addr{a}}}}
	host := spoof.Host{Isolated: spec.PerFamily[[]netip.Addr]{IPv4: []netip.Addr{a}}}
	return nft.Ruleset{spoof.CompileINet(sp, &spec.Node{Name: "n1"}), spoof.Compile(sp, &spec.Node{Name: "n1"}, host)}
}

// TestBootCloses: whatever keeps the ruleset from being loaded, who was isolated
// is closed, and where that is not known, all who may have been; a host on which
// nobody was stays as it is.
func TestBootCloses(t *testing.T) {
	free := nft.Ruleset{{Family: nft.INet, Name: nft.TableName, Counters: []string{"a"}}}
	isolated := closed.Of(isolating())
	if len(isolated.Ports) != 1 || isolated.Ports[0] != "veth1" || len(isolated.Addresses) != 1 {
		t.Fatalf("isolated are %+v", isolated)
	}
	write := func(text string) func(string) error {
		return func(file string) error { return os.WriteFile(file, []byte(text), 0o600) }
	}
	newer := func(file string) error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(file, []byte(strings.Replace(string(b), `"version":1`, `"version":2`, 1)), 0o600)
	}
	obstacle := func(file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) }
	none := func(string) error { return nil }
	for name, c := range map[string]struct {
		kept    nft.Ruleset
		refused bool // by the kernel, once
		ruleset func(file string) error
		closed  func(file string) error
		says    string
		want    nft.Ruleset
	}{
		"nothing is wrong":           {kept: isolating(), ruleset: none, closed: none, want: isolating()},
		"damaged":                    {kept: isolating(), ruleset: write("x"), closed: none, says: "damaged", want: isolated.Compile()},
		"empty":                      {kept: isolating(), ruleset: write(""), closed: none, says: "damaged", want: isolated.Compile()},
		"newer":                      {kept: isolating(), ruleset: newer, closed: none, says: "of version 2", want: isolated.Compile()},
		"gone":                       {kept: isolating(), ruleset: os.Remove, closed: none, says: "last-ruleset.json is gone", want: isolated.Compile()},
		"unreadable":                 {kept: isolating(), ruleset: obstacle, closed: none, says: "is a directory", want: isolated.Compile()},
		"refused":                    {kept: isolating(), refused: true, ruleset: none, closed: none, says: errRefused.Error(), want: isolated.Compile()},
		"both damaged":               {kept: isolating(), ruleset: write("x"), closed: write("y"), says: "to any bridge", want: closed.CompileAll()},
		"both newer":                 {kept: isolating(), ruleset: newer, closed: newer, says: "to any bridge", want: closed.CompileAll()},
		"both unreadable":            {kept: isolating(), ruleset: obstacle, closed: obstacle, says: "to any bridge", want: closed.CompileAll()},
		"damaged, nobody isolated":   {kept: free, ruleset: write("x"), closed: none, says: "nothing was loaded; no endpoint was isolated"},
		"gone, nobody isolated":      {kept: free, ruleset: os.Remove, closed: none, says: "no ruleset is kept"},
		"what isolates is no longer": {kept: append(isolating()[:0:0], free...), ruleset: newer, closed: none, says: "no endpoint was isolated"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, rs := range []nft.Ruleset{isolating(), c.kept} { // one after the other
				if err := keepRuleset(dir, rs); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(c.ruleset(rulesetFile(dir)), c.closed(closedFile(dir))); err != nil {
				t.Fatal(err)
			}
			k := newFakeKernel()
			if c.refused {
				k.refusal = errRefused
				k.refused[rulesKey] = 1
			}
			booted, err := boot(t.Context(), dir, fakeRuleset{k}, fakeRuleset{k})
			if c.says == "" && (err != nil || booted == nil) || c.says != "" && (err == nil || booted != nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("it says %v, want %q", err, c.says)
			}
			now, _ := k.rules.Read(tables...)
			if !nft.Diff(c.want, now).Empty() {
				t.Errorf("it loaded\n%s\nnot\n%s", now, c.want)
			}
		})
	}
}

// TestNobodyStaysClosed: who was isolated is forgotten with the ruleset.
func TestNobodyStaysClosed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "polder")
	for _, rs := range []nft.Ruleset{isolating(), nil} {
		if err := keepRuleset(dir, rs); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("there remain %v, %v", left, err)
	}
}

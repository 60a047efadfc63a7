package reconcile

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/nft"
)

// TestFakeKernelIsTheKernel: a daemon on a real kernel and one on the fake see
// the same specs and damages. After every step, while the daemons run and while
// they do not, both kernels hold the same, and the same would be planned.
func TestFakeKernelIsTheKernel(t *testing.T) {
	lab.Require(t)
	for _, tool := range []string{"ip", "bridge", "nft"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("POLDER_KERNEL") == "require" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("this test does damage with %s", tool)
		}
	}
	specs := specCache{dir: t.TempDir(), known: map[string]*loaded{}}
	rapid.Check(t, func(rt *rapid.T) {
		l := newLockstep(rt, &specs, t.TempDir())
		defer l.close()
		l.start()
		l.compare()
		for range rapid.IntRange(1, 2).Draw(rt, "steps") {
			l.step()
			l.compare()
		}
	})
}

// lockstep is a real host and a fake one to which the same things happen.
type lockstep struct {
	*transitions // of the fake one
	real         *fakeHost
	ns           *lab.Namespace
	planner      *Planner // of the real one
	running      bool     // both daemons
}

func newLockstep(rt *rapid.T, specs *specCache, dir string) *lockstep {
	l := &lockstep{transitions: newTransitions(rt, specs, filepath.Join(dir, "fake"))}
	for _, peer := range []string{"wire", "peer1", "peer2"} {
		l.network.Plug(peer)
	}
	l.real = &fakeHost{t: rt, dir: filepath.Join(dir, "real"), source: &fakeSource{current: l.good, changed: make(chan struct{}, 1)}}
	var err error
	if l.ns, err = lab.NewNamespace("n1"); err != nil {
		rt.Fatal(err)
	}
	l.sh("ip link add eth0 type veth peer name wire; ip link set wire up; ip link set eth0 up")
	for _, a := range ownAddresses {
		l.sh(fmt.Sprintf("ip addr add %s dev eth0 nodad", a))
	}
	for i, link := range workloads {
		l.sh(fmt.Sprintf("ip link add %s type veth peer name peer%d; ip link set peer%d up; ip link set %s up", link, i+1, i+1, link))
	}
	l.sh(fmt.Sprintf("ip route add %s via %s proto static", foreignRoute.Dst, foreignRoute.Gateway))
	l.nft(nft.Ruleset{foreignTable}.String())
	l.in(func() (err error) {
		l.planner, err = Open(Options{Node: "n1", StateDir: l.real.dir})
		return err
	})
	return l
}

func (l *lockstep) close() {
	l.halt()
	if err := l.planner.Close(); err != nil {
		l.rt.Error(err)
	}
	if err := l.ns.Close(); err != nil {
		l.rt.Error(err)
	}
}

// in does something in the namespace of the real host.
func (l *lockstep) in(do func() error) {
	l.rt.Helper()
	if err := l.ns.Do(do); err != nil {
		l.rt.Fatal(err)
	}
}

// sh runs a command on the real host.
func (l *lockstep) sh(command string) { l.exec("", "sh", "-ec", command) }

func (l *lockstep) nft(script string) { l.exec(script, "nft", "-f", "-") }

func (l *lockstep) exec(input string, argv ...string) {
	l.rt.Helper()
	cmd := l.ns.Command(context.Background(), argv...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.fatal("%v %s: %v\n%s", argv, input, err, out)
	}
}

// start lets a daemon run on both hosts.
func (l *lockstep) start() {
	l.running = true
	l.fakeHost.open(DaemonOptions{})
	l.real.source.current = l.source.current
	l.in(func() error {
		applier, err := OpenApplier(Options{Node: "n1", StateDir: l.real.dir})
		if err == nil {
			l.real.Daemon = newDaemon(DaemonOptions{Node: "n1", StateDir: l.real.dir}, l.real.source, applier, kernelStreams())
		}
		return err
	})
	for _, h := range []*fakeHost{l.fakeHost, l.real} {
		var ctx context.Context
		ctx, h.stop = context.WithCancel(context.Background())
		h.done = make(chan struct{})
		go func() {
			defer close(h.done)
			run := func() error {
				h.Daemon.Run(ctx)
				return nil
			}
			if h != l.real {
				_ = run() // which never fails
			} else if err := l.ns.Do(run); err != nil {
				l.rt.Error(err)
			}
		}()
	}
}

// halt ends both daemons.
func (l *lockstep) halt() {
	if !l.running {
		return
	}
	l.running = false
	for _, h := range []*fakeHost{l.fakeHost, l.real} {
		h.end()
		if err := h.Daemon.Close(); err != nil {
			l.rt.Error(err)
		}
	}
}

func (l *lockstep) step() {
	steps := []func(){l.newSpec, l.damage, l.destroy, l.damageAtNight, l.damageAtNight, l.damageAtNight}
	steps[l.number("step", 0, len(steps)-1)]()
}

// damageAtNight does a lot of damage while no daemon runs.
func (l *lockstep) damageAtNight() {
	l.halt()
	for range l.number("damages", 1, 10) {
		l.damage()
		l.compare()
	}
	l.start()
}

func (l *lockstep) newSpec() {
	l.changeSpec()
	l.real.source.write(l.good)
}

// damage does the same to both.
func (l *lockstep) damage() {
	l.do(func() {
		network, rules := l.network.Damages("eth0"), l.rules.Damages(tables[0])
		if l.number("of rules", 0, 2) > 0 && len(network) > 0 {
			d := sample(l.transitions, "damage", network)
			l.note("%s", d.Command)
			l.sh(d.Command)
			l.network.Do(d)
		} else if len(rules) > 0 {
			d := sample(l.transitions, "damage", rules)
			l.note("nft %s", d.Script)
			l.nft(d.Script)
			if err := l.rules.Do("nft", d); err != nil {
				l.fatal("%v", err)
			}
		}
	})
}

// destroy removes everything, and a new daemon makes it again.
func (l *lockstep) destroy() {
	l.note("destroy by command")
	for _, h := range []*fakeHost{l.fakeHost, l.real} {
		plan, err := h.Daemon.Plan(context.Background(), ModeDestroy)
		if err == nil {
			_, err = h.Apply(context.Background(), ModeDestroy, plan.ID(), func(Outcome) {})
		}
		if err != nil {
			l.fatal("%v", err)
		}
	}
	l.halt()
	l.compare()
	l.start()
}

// compare waits until running daemons are done, and fails unless both kernels
// are at the same state.
func (l *lockstep) compare() {
	fake := &Planner{options: Options{Spec: l.good.config.Spec, Node: "n1", StateDir: l.fakeHost.dir}, network: fakeNetwork{l.fakeKernel}, ruleset: fakeRuleset{l.fakeKernel}}
	l.planner.setSpec(l.good.config.Spec)
	deadline := time.Now().Add(20 * time.Second)
	for {
		theirs := l.look(fake)
		var ours string
		l.in(func() error {
			ours = l.look(l.planner)
			return nil
		})
		same := theirs == ours
		if l.running {
			same = same && strings.HasSuffix(ours, inSyncText) && l.rests(l.fakeHost) && l.rests(l.real)
		}
		if same {
			return
		}
		if !l.running || time.Now().After(deadline) {
			l.fatal("the kernel and the fake differ (- the kernel, + the fake):\n%s\nthe daemon on the kernel told\n%s", differ(ours, theirs), l.real.story(0))
		}
		l.wait()
	}
}

// rests says that a daemon is in sync and not in the middle of a round.
func (l *lockstep) rests(h *fakeHost) bool {
	if err := h.Ping(context.Background()); err != nil {
		l.fatal("%v", err)
	}
	return h.Condition().InSync
}

// wait waits until one of the daemons tells something, or for a little while.
func (l *lockstep) wait() {
	_, one := l.fakeHost.journal.since(l.fakeHost.journal.Last())
	_, other := l.real.journal.since(l.real.journal.Last())
	select {
	case <-one:
	case <-other:
	case <-time.After(5 * time.Millisecond):
	}
}

const inSyncText = "the plan is empty\n"

// look is what a kernel holds and what would be planned, as text.
func (l *lockstep) look(p *Planner) string {
	v, err := p.look(context.Background(), ModeApply)
	if err != nil {
		l.fatal("%v", err)
	}
	var b strings.Builder
	b.WriteString(v.observed.State.String())
	for _, name := range slices.Sorted(maps.Keys(v.facts.Links)) {
		addresses := slices.DeleteFunc(slices.Clone(v.facts.Links[name].Addresses), func(a netip.Prefix) bool {
			return a.Addr().IsLinkLocalUnicast() || a.Addr().IsLoopback() // which no model has
		})
		slices.SortFunc(addresses, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		fmt.Fprintf(&b, "link %s has %v\n", name, addresses)
	}
	b.WriteString(v.rules.String())
	plan := v.plan(ModeApply, "n1")
	for _, c := range plan.Changes {
		fmt.Fprintf(&b, "plan: %s %s %s %v\n", c.Action, c.Kind, c.Name, c.Attrs)
	}
	for _, c := range plan.Conflicts {
		fmt.Fprintf(&b, "conflict: %s %s: %s\n", c.Kind, c.Name, c.Reason)
	}
	if plan.Empty() {
		b.WriteString(inSyncText)
	}
	return b.String()
}

// differ lists the lines that only one of two texts has.
func differ(a, b string) string {
	var out []string
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, line := range as {
		if !slices.Contains(bs, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range bs {
		if !slices.Contains(as, line) {
			out = append(out, "+ "+line)
		}
	}
	return strings.Join(out, "\n")
}

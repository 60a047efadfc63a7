package nft

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busyNeighbour commits to a table of its own, as kube-proxy does, as fast as
// nft(8) can, until the returned function is called. It has committed before
// this returns.
func (k *kernel) busyNeighbour() (stop func()) {
	k.t.Helper()
	k.nft("add table ip busy; add chain ip busy c")
	return k.committer("add rule ip busy c accept; flush chain ip busy c")
}

// committer runs nft(8) scripts in turn, again and again.
func (k *kernel) committer(scripts ...string) (stop func()) {
	k.t.Helper()
	loop := "while :; do\n"
	for _, s := range scripts {
		loop += "nft '" + s + "' || exit\n"
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := k.Command(ctx, "sh", "-c", loop+"done")
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	from, err := k.w.reader.Generation()
	for now := from; err == nil && now == from; {
		now, err = k.w.reader.Generation()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}
}

// A neighbour that commits all the time must not keep us from reading or
// committing, nor from seeing who touched what.
func TestBusyNeighbour(t *testing.T) {
	k := newKernel(t)
	defer k.busyNeighbour()()
	want := sample()
	want.Sets = append(want.Sets, Set{Name: "big", Key: []Type{TypeIPv4Addr}, Elements: manyAddresses(20_000)})
	for range 5 {
		k.apply(want)
		k.apply()
	}
	// It was there to the end.
	from, err := k.w.reader.Generation()
	for now, deadline := from, time.Now().Add(5*time.Second); err == nil && now == from; {
		if now, err = k.w.reader.Generation(); time.Now().After(deadline) {
			t.Fatal("the neighbour has stopped")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A read shows one state of our tables, also while somebody changes several of
// their objects in each commit.
func TestReadsAreNotTorn(t *testing.T) {
	k := newKernel(t)
	want := big(5_000) // takes its time to read, between the chains
	for _, name := range []string{"a", "z"} {
		want.Chains = append(want.Chains, Chain{Name: name, Rules: []Rule{NewRule("1", Do(Drop))}})
	}
	want.Sets = append(want.Sets, Set{Name: "version", Key: []Type{TypeMark}, Elements: []Element{Exact(Number(1))}})
	k.apply(want)
	var scripts []string
	for _, v := range []string{"2", "1"} {
		scripts = append(scripts, `flush chain inet polder a; flush chain inet polder z; flush set inet polder version
			add rule inet polder a drop comment "`+v+`"; add rule inet polder z drop comment "`+v+`"
			add element inet polder version { `+v+` }`)
	}
	defer k.committer(scripts...)()
	seen := map[string]int{}
	for range 100 {
		observed, _, err := k.w.reader.Read(context.Background(), inetPolder)
		if errors.Is(err, errTorn) {
			continue // it says so
		}
		if err != nil {
			t.Fatal(err)
		}
		a, _ := observed[0].Chain("a")
		z, _ := observed[0].Chain("z")
		s, _ := observed[0].Set("version")
		v := a.Rules[0].Comment
		if seen[v]++; z.Rules[0].Comment != v || len(s.Elements) != 1 || v == "1" != (s.Elements[0].Key == Number(1)) {
			t.Fatalf("a mixture was read:\n%s%s%s", a, z, s)
		}
	}
	if seen["1"] == 0 || seen["2"] == 0 {
		t.Errorf("versions were seen %v times", seen)
	}
}

// A commit against a generation in which our table was another is refused.
func TestStalePlan(t *testing.T) {
	k := newKernel(t)
	k.apply(sample())
	observed, gen := k.read()
	want := sample()
	want.Chains = want.Chains[1:] // the dispatcher
	p := Diff(Ruleset{want}, observed)
	k.nft("add rule inet polder work accept")
	_, err := k.w.Commit(context.Background(), p, gen)
	var stage *StageError
	if !errors.Is(err, ErrStale) || !errors.As(err, &stage) || stage.Stage != "switch" {
		t.Errorf("error %v, want %v in the switch", err, ErrStale)
	}
	after, _ := k.read()
	work, _ := after[0].Chain("work")
	if len(work.Rules) != 2 || len(after[0].Chains) != len(observed[0].Chains) {
		t.Errorf("the refused plan left\n%s", after)
	}
}

// Foreign commits alone renew the guard.
func TestForeignCommitRenewsTheGuard(t *testing.T) {
	k := newKernel(t)
	observed, gen := k.read()
	k.nft("add table ip other")
	if _, err := k.w.Commit(context.Background(), Diff(Ruleset{sample()}, observed), gen); err != nil {
		t.Error(err)
	}
}

// What the kernel refuses is told with the stage.
func TestTheKernelsErrorIsNamed(t *testing.T) {
	k := newKernel(t)
	want := sample()
	i := index(want.Chains, "work")
	want.Chains[i].Rules = []Rule{NewRule("", Do(Masquerade{}))} // in a filter chain
	_, gen := k.read()
	_, err := k.w.Commit(context.Background(), Diff(Ruleset{want}, nil), gen)
	var stage *StageError
	if !errors.As(err, &stage) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("error %v, want %v of a stage", err, unix.EOPNOTSUPP)
	}
}

// Nothing but our tables is written or deleted.
func TestForeignTablesStay(t *testing.T) {
	k := newKernel(t)
	foreign := "table ip polder {\n\tchain c {\n\t\taccept\n\t}\n}\ntable inet other {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1 }\n\t}\n}\n"
	k.nft(foreign)
	before := k.nft("list ruleset")
	k.apply(sample())
	k.apply()
	if after := k.nft("list ruleset"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestForeignDrops(t *testing.T) {
	k := newKernel(t)
	k.apply(sample()) // our own policy drop is not foreign
	k.nft(`
table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; ip saddr 10.0.0.0/8 accept
	}; chain INPUT { type filter hook input priority 0; policy accept; tcp dport 22 drop
	}; }
table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established accept; counter reject with icmpx type admin-prohibited
	}; chain filter_OUTPUT { type filter hook output priority 10; policy accept; log prefix "x" counter drop
	}; }
table bridge b { chain f { type filter hook forward priority 0; policy drop; }; }
table ip nat { chain p { type nat hook postrouting priority 100; policy accept; drop
	}; }
table netdev n { chain c { drop
	}; }`)
	drops, err := k.w.reader.ForeignDrops(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := map[ForeignDrop]bool{
		{TableID{IP, "filter"}, "FORWARD", "forward", "policy drop"}:                true,
		{TableID{INet, "firewalld"}, "filter_FORWARD", "forward", "ends in reject"}: true,
		{TableID{INet, "firewalld"}, "filter_OUTPUT", "output", "ends in drop"}:     true,
		{TableID{Bridge, "b"}, "f", "forward", "policy drop"}:                       true,
	}
	for _, d := range drops {
		if !want[d] {
			t.Errorf("found %+v", d)
		}
		delete(want, d)
	}
	for d := range want {
		t.Errorf("not found: %+v", d)
	}
}

// Reading is not writing: the kernel tells every commit to listeners, and its
// generation moves.
func TestReadingWritesNothing(t *testing.T) {
	k := newKernel(t)
	k.apply(sample())
	before := k.nft("list ruleset")
	gen, err := k.w.reader.Generation()
	if err != nil {
		t.Fatal(err)
	}
	observed, _ := k.read()
	if _, err := k.w.reader.ForeignDrops(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.w.Commit(context.Background(), Diff(Ruleset{sample()}, observed), gen); err != nil {
		t.Fatal(err)
	}
	if now, _ := k.w.reader.Generation(); now != gen {
		t.Errorf("the generation moved from %d to %d", gen, now)
	}
	if after := k.nft("list ruleset"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// The descriptors of a socket that nobody closes would add up in a daemon.
func TestReadsLeaveNoDescriptors(t *testing.T) {
	k := newKernel(t)
	stop := k.busyNeighbour()
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	k.read()
	before := count()
	for range 20 {
		k.read()
	}
	after := count()
	stop()
	if after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// A hash table that grows while it is dumped is not taken for one that lost
// elements.
func TestSetThatGrowsIsReadWhole(t *testing.T) {
	k := newKernel(t)
	for _, n := range []int{30_000, 100_000} {
		k.apply(big(n))
		k.apply()
	}
}

// The chains of others are listed by their tables, also those that iptables
// makes.
func TestChainNames(t *testing.T) {
	k := newKernel(t)
	k.nft("add table ip flannel-ipv4; add chain ip flannel-ipv4 postrtg; add chain ip flannel-ipv4 forward; add table ip6 empty")
	k.apply(sample())
	names, err := k.w.reader.ChainNames()
	if err != nil {
		t.Fatal(err)
	}
	if got := names[TableID{IP, "flannel-ipv4"}]; !slices.Equal(got, []string{"postrtg", "forward"}) {
		t.Errorf("ip flannel-ipv4 has %q", got)
	}
	if got := len(names[inetPolder]); got != len(sample().Chains) {
		t.Errorf("inet polder has %q", names[inetPolder])
	}
}

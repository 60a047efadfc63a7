package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watcher opens a Watcher in the namespace.
func (k *kernel) watcher() *watcherUnderTest {
	k.t.Helper()
	w := &watcherUnderTest{t: k.t}
	err := k.Do(func() (err error) {
		w.Watcher, err = OpenWatcher()
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.(testing.TB).Cleanup(func() { _ = w.Close() }) // a test may have done so
	return w
}

type watcherUnderTest struct {
	*Watcher
	t tb
}

// next is the next commit, which has been made.
func (w *watcherUnderTest) next() Commit {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := w.Next(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// until is all commits up to a generation.
func (w *watcherUnderTest) until(gen Generation) []Commit {
	w.t.Helper()
	var list []Commit
	for {
		c := w.next()
		if list = append(list, c); c.Generation == gen {
			return list
		}
	}
}

func (k *kernel) generation() Generation {
	k.t.Helper()
	gen, err := k.w.reader.Generation()
	if err != nil {
		k.t.Fatal(err)
	}
	return gen
}

// Each commit is told of once, with its generation, its process and the tables
// that it touched.
func TestWatcherTellsWhatWasTouched(t *testing.T) {
	k := newKernel(t)
	other, bridge := TableID{IP, "other"}, TableID{Bridge, TableName}
	var many strings.Builder // over several datagrams
	for i := range 5_000 {
		fmt.Fprintf(&many, "add element ip other foreign { 10.1.%d.%d }\n", i>>8, i&255)
	}
	const foreign = "table ip other { set foreign { type ipv4_addr; }; chain c { type filter hook input priority 0; }; }\n"
	w := k.watcher()
	for _, c := range []struct {
		script string
		chains bool
		tables []TableID
	}{
		{"add table inet polder", false, []TableID{inetPolder}},
		{"add table inet polder { flags dormant; }", false, []TableID{inetPolder}},
		{"add table inet polder; add set inet polder extra { type ipv4_addr; }", false, []TableID{inetPolder}},
		{"delete set inet polder extra", false, []TableID{inetPolder}},
		{"delete table inet polder", false, []TableID{inetPolder}},
		{sample().String(), true, []TableID{inetPolder}},
		{foreign, true, []TableID{other}},
		{"chain inet polder forward { policy accept; }", true, []TableID{inetPolder}},
		{"add chain inet polder extra", true, []TableID{inetPolder}},
		{"delete chain inet polder extra", true, []TableID{inetPolder}},
		{"flush chain inet polder early", true, []TableID{inetPolder}},
		{"insert rule inet polder work accept", true, []TableID{inetPolder}},
		{"add element inet polder links { \"eth7\" }", false, []TableID{inetPolder}},
		{"delete element inet polder links { \"eth7\" }", false, []TableID{inetPolder}},
		{"flush set inet polder ports4", false, []TableID{inetPolder}},
		{"add counter inet polder extra", false, []TableID{inetPolder}},
		{"delete counter inet polder extra", false, []TableID{inetPolder}},
		{"add rule ip other c accept", true, []TableID{other}},
		{"add element ip other foreign { 10.0.0.1 }", false, []TableID{other}},
		{"add counter ip other polder", false, []TableID{other}},
		{many.String(), false, []TableID{other}},
		{strings.ReplaceAll(many.String(), "add", "delete") + "add element inet polder links { \"eth8\" }", false, []TableID{other, inetPolder}},
		{"delete element inet polder links { \"eth8\" }\n" + many.String(), false, []TableID{inetPolder, other}},
		{"add table ip polder; add table netdev polder; add table inet other", false, []TableID{{IP, TableName}, {NetDev, TableName}, {INet, "other"}}},
		{"add table bridge polder", false, []TableID{bridge}},
		{"delete table ip other", true, []TableID{other}},
		{foreign, true, []TableID{other}},
		{"delete table inet polder", true, []TableID{inetPolder}},
		{sample().String() + "delete table inet other", true, []TableID{inetPolder, {INet, "other"}}},
		{"flush ruleset", true, []TableID{{IP, TableName}, other, inetPolder, {NetDev, TableName}, bridge}},
	} {
		from := k.generation()
		k.nft(c.script)
		got := w.next()
		order := func(a, b TableID) int { return strings.Compare(a.String(), b.String()) }
		slices.SortFunc(got.Tables, order)
		slices.SortFunc(c.tables, order)
		if !slices.Equal(got.Tables, c.tables) || got.Chains != c.chains {
			t.Errorf("touched %v, chains %t; want %v, %t, by\n%.300s", got.Tables, got.Chains, c.tables, c.chains, c.script)
		}
		if got.Touches([]TableID{inetPolder, bridge}) != slices.ContainsFunc(c.tables, func(id TableID) bool { return id == inetPolder || id == bridge }) {
			t.Errorf("touching of ours is not right, by\n%.300s", c.script)
		}
		if got.Generation != from.next() || got.Process != "nft" || got.PID <= 0 {
			t.Errorf("after %d: generation %d by %q, PID %d", from, got.Generation, got.Process, got.PID)
		}
	}
}

// Generations of commits follow one another, whoever commits, and our own come
// with those in which the Writer leaves the tables.
func TestWatcherMissesNoCommit(t *testing.T) {
	k := newKernel(t)
	k.nft("add table ip busy; add chain ip busy c")
	w := k.watcher()
	last := k.generation()
	stop := k.committer("add rule ip busy c accept; flush chain ip busy c")
	for i := range 20 {
		want := []Table{sample()}
		if i%2 == 1 {
			want = nil
		}
		observed, gen := k.read()
		if _, err := k.w.Commit(context.Background(), Diff(want, observed), gen); err != nil {
			t.Fatal(err)
		}
		observed, gen = k.read()
		if !Diff(want, observed).Empty() {
			t.Fatal("the commit left something")
		}
		var ours []Commit
		for _, c := range w.until(gen) {
			if c.Generation != last.next() {
				t.Fatalf("after the commit %d comes %d", last, c.Generation)
			}
			last = c.Generation
			if c.Touches([]TableID{inetPolder}) {
				ours = append(ours, c)
			} else if !c.Touches([]TableID{{IP, "busy"}}) || c.Process != "nft" {
				t.Fatalf("who made the commit %+v?", c)
			}
		}
		if len(ours) == 0 || slices.ContainsFunc(ours, func(c Commit) bool { return c.Process == "nft" }) {
			t.Fatalf("our own commits are %+v", ours)
		}
	}
	stop()
}

// An overflow is told of. Commits made after that are told of again.
func TestWatcherOverflow(t *testing.T) {
	k := newKernel(t)
	w := k.watcher()
	if err := w.watch.conn.SetReadBuffer(1); err != nil { // the kernel has a least length
		t.Fatal(err)
	}
	for round := range 3 {
		var err error
		for range 20 {
			k.nft("add table ip other; delete table ip other")
		}
		n := 0
		for ; err == nil && n <= 20; n++ {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err = w.Next(ctx)
			cancel()
		}
		if !errors.Is(err, ErrLost) {
			t.Fatalf("after %d commits of 20, error %v, want %v", n, err, ErrLost)
		}
		from := k.generation()
		k.nft("add table inet polder; add counter inet polder c" + strconv.Itoa(round))
		if c := w.next(); c.Generation != from.next() || !c.Touches([]TableID{inetPolder}) {
			t.Fatalf("round %d: the commit after %d is %+v", round, from, c)
		}
	}
}

// Waiting ends with its context, and leaves the Watcher as it was.
func TestWatcherIsInterruptible(t *testing.T) {
	k := newKernel(t)
	w := k.watcher()
	for range 50 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := w.Next(ctx)
			done <- err
		}()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want %v", err, context.Canceled)
		}
	}
	k.nft("add table inet polder")
	if c := w.next(); !c.Touches([]TableID{inetPolder}) {
		t.Errorf("then comes %+v", c)
	}
	done := make(chan error)
	go func() {
		_, err := w.Next(context.Background())
		done <- err
	}()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || errors.Is(err, ErrLost) {
		t.Errorf("error %v of a Watcher that was closed", err)
	}
}

// BenchmarkForeignCommit is what a commit by somebody else costs who watches:
// a small one, and one with a thousand elements. nft(8) makes them, one after
// the other, so that the CPU time of this process is the Watcher's.
func BenchmarkForeignCommit(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("elements=%d", n), func(b *testing.B) {
			k := newKernel(b)
			k.nft("add table ip other; add set ip other s { type ipv4_addr; }")
			var elements []string
			for i := range n {
				elements = append(elements, fmt.Sprintf("10.0.%d.%d", i>>8, i&255))
			}
			list := " element ip other s { " + strings.Join(elements, ", ") + " }"
			w := k.watcher()
			ctx, cancel := context.WithCancel(context.Background())
			yes := k.Command(ctx, "yes", "add"+list+"\ndelete"+list)
			nft := k.Command(ctx, "nft", "-i")
			var err error
			if nft.Stdin, err = yes.StdoutPipe(); err == nil {
				err = errors.Join(nft.Start(), yes.Start())
			}
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				cancel()
				_, _ = yes.Wait(), nft.Wait() // they were killed
			}()
			for range 10 {
				w.next()
			}
			measure(b, unix.RUSAGE_SELF, func() {
				if _, err := w.Next(ctx); err != nil && !errors.Is(err, ErrLost) {
					b.Fatal(err)
				}
			})
		})
	}
}

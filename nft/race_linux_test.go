package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/spec"
)

// version is one of two tables that both drop what is sent to the loopback
// address, in different words: the verdict map leads to another chain, or is another
// map that does, and the chain asks a set with another meaning. A packet that sees a mixture of both gets to
// a rule that counts it as wrong: the old set may say what the new rules take
// for the opposite, and a chain that is pointed to too early has no rules yet.
func version(dispatch string, k int) Table {
	local := Addr(netip.MustParseAddr("127.0.0.1"))
	chain, set := fmt.Sprintf("work-%d", k), fmt.Sprintf("set-%d", k)
	right, wrong := Do(CounterRef{"right"}, Drop), Do(CounterRef{"wrong"})
	rules := [][]Rule{
		{NewRule("", Saddr(spec.IPv4).In(set), right), NewRule("", wrong)},
		{NewRule("", Saddr(spec.IPv4).In(set), wrong), NewRule("", right)},
	}[k]
	members := [][]Element{{Exact(local)}, nil}[k]
	return Table{
		Family: INet, Name: TableName,
		Counters: []string{"right", "wrong"},
		Sets: []Set{
			{Name: dispatch, Key: []Type{TypeIPv4Addr}, Verdicts: true, Elements: []Element{local.Maps(Jump(chain))}},
			{Name: set, Key: []Type{TypeIPv4Addr}, Elements: members},
		},
		Chains: []Chain{
			{Name: chain, Rules: rules},
			{Name: "output", Base: &Base{"filter", "output", PriorityFilter, PolicyAccept}, Rules: []Rule{
				NewRule("", Daddr(spec.IPv4).VMap(dispatch)),
				NewRule("", wrong),
			}},
		},
	}
}

// While one thread sends as fast as it can, another goes from one version to
// the other and back. No packet is judged by a mixture.
func TestNoPacketSeesHalfAChange(t *testing.T) {
	for name, maps := range map[string][2]string{
		"a map that changes": {"dispatch", "dispatch"},
		"another map":        {"dispatch-0", "dispatch-1"}, // it comes with the rules that look it up
	} {
		t.Run(name, func(t *testing.T) { noPacketSeesHalfAChange(t, maps) })
	}
}

func noPacketSeesHalfAChange(t *testing.T, maps [2]string) {
	t.Helper()
	k := newKernel(t)
	k.nft("list ruleset") // or skip
	k.sh("ip link set lo up")
	k.apply(version(maps[0], 0))
	stop, sent, _ := k.flood()
	duration := 2 * time.Second
	if testing.Short() {
		duration /= 4
	}
	commits := 0
	for end := time.Now().Add(duration); time.Now().Before(end); commits++ {
		observed, gen := k.read()
		next := (commits + 1) % 2
		plan := Diff(Ruleset{version(maps[next], next)}, observed)
		if joined := len(plan.Prepare.transactions) == 0; joined != (maps[0] != maps[1]) {
			t.Fatalf("made before the switch or by it:\n%s", plan)
		}
		if _, err := k.w.Commit(context.Background(), plan, gen); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	n := <-sent
	right, wrong := k.counter("right"), k.counter("wrong")
	t.Logf("%d changes, %d packets", commits, n)
	if wrong > 0 || right < n/2 || commits < 10 || n < 1000 {
		t.Errorf("%d changes, %d packets sent, %d judged right, %d wrong", commits, n, right, wrong)
	}
}

// TestNoPacketMissesATableThatGoes: what a table lets pass, by a set and a map, and
// what passes without it, passes while it comes and goes.
func TestNoPacketMissesATableThatGoes(t *testing.T) {
	k := newKernel(t)
	k.nft("list ruleset") // or skip
	k.sh("ip link set lo up")
	local := Addr(netip.MustParseAddr("127.0.0.1"))
	table := Table{
		Family: INet, Name: TableName,
		Sets: []Set{
			{Name: "dispatch", Key: []Type{TypeIPv4Addr}, Verdicts: true, Elements: []Element{local.Maps(Jump("work"))}},
			{Name: "set", Key: []Type{TypeIPv4Addr}, Elements: []Element{Exact(local)}},
		},
		Chains: []Chain{
			{Name: "output", Base: &Base{"filter", "output", PriorityFilter, PolicyAccept}, Rules: []Rule{
				NewRule("", Daddr(spec.IPv4).VMap("dispatch")),
				NewRule("", Do(Drop)),
			}},
			{Name: "work", Rules: []Rule{NewRule("", Saddr(spec.IPv4).In("set"), Do(Accept))}},
		},
	}
	stop, sent, refused := k.flood()
	commits := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); commits++ {
		observed, gen := k.read()
		want := Ruleset{table}
		if commits%2 == 1 {
			want = nil
		}
		if _, err := k.w.Commit(context.Background(), Diff(want, observed), gen); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	n := <-sent
	t.Logf("%d changes, %d packets", commits, n)
	if refused.Load() > 0 || commits < 10 || n < 1000 {
		t.Errorf("%d changes, %d packets sent, %d dropped", commits, n, refused.Load())
	}
}

// flood sends datagrams to the loopback address until stop is closed, and then
// says how many. Some are refused.
func (k *kernel) flood() (stop chan struct{}, sent chan int, refused *atomic.Int64) {
	k.t.Helper()
	var fd int
	err := k.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	stop, sent, refused = make(chan struct{}), make(chan int), &atomic.Int64{}
	go func() {
		n := 0
		defer func() {
			_ = unix.Close(fd)
			sent <- n
		}()
		for to := (&unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); ; {
			select {
			case <-stop:
				return
			default:
			}
			for range 100 {
				// The output hook tells a sender of the drop.
				err := unix.Sendto(fd, []byte("x"), 0, to)
				if errors.Is(err, unix.EPERM) {
					refused.Add(1)
					err = nil
				}
				if err == nil {
					n++
				}
			}
		}
	}()
	return stop, sent, refused
}

func (k *kernel) sh(script string) string {
	k.t.Helper()
	out, err := k.Command(context.Background(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		k.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// counter is the packets of a named counter.
func (k *kernel) counter(name string) int {
	k.t.Helper()
	out := k.sh("nft list counter inet polder " + name)
	m := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(out)
	if m == nil {
		k.t.Fatalf("no packets in %s", out)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

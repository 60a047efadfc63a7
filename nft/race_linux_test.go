package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
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
	stop, sent := k.flood()
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

// flood sends datagrams to the loopback address until stop is closed, and then
// says how many.
func (k *kernel) flood() (stop chan struct{}, sent chan int) {
	k.t.Helper()
	var fd int
	err := k.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	stop, sent = make(chan struct{}), make(chan int)
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
				if err := unix.Sendto(fd, []byte("x"), 0, to); err == nil || errors.Is(err, unix.EPERM) {
					n++
				}
			}
		}
	}()
	return stop, sent
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

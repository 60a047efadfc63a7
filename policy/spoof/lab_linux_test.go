package spoof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/drop"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

const topology = `
link "lan" {}
node "n1" {
  link "lan" {}
}
`

// network is a node with the bridge that polder would make, made with ip(8),
// and polder's rules. The pods alien and alien2 are on a bridge of somebody
// else's that has the same subnet.
type network struct {
	*lab.Lab
	t    *testing.T
	spec *spec.Spec
}

func newNetwork(t *testing.T, host Host) *network {
	t.Helper()
	lab.Require(t)
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("POLDER_KERNEL") == "require" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("this test makes its network and reads counters with %s", tool)
		}
	}
	topo, diags := lab.ParseTopology("test.lab.hcl", []byte(topology))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	s := oneNode()
	attached := *s
	attached.Endpoints = nil
	for _, e := range s.Endpoints {
		if e.Node != "n1" {
			continue
		}
		e2 := *e
		e2.Interface = "veth-" + e.Name
		if e2.MAC.IsZero() {
			e2.MAC = macOf(e)
		}
		attached.Endpoints = append(attached.Endpoints, &e2)
	}
	for i, name := range []string{"alien", "alien2"} {
		attached.Endpoints = append(attached.Endpoints, pod(name, 20+i))
		attached.Endpoints[len(attached.Endpoints)-1].Interface = "veth-" + name
	}
	l, err := lab.Up(context.Background(), topo, &attached)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &network{l, t, s}
	n.sh("n1", `
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip link add cni0 address `+s.BridgeMAC(s.Nodes[0]).String()+` type bridge mcast_snooping 0
		ip link add foreign type bridge mcast_snooping 0
		sysctl -qw net.ipv6.conf.cni0.accept_dad=0
		ip link set cni0 up
		ip link set foreign up
		ip addr add 10.244.1.1/24 dev cni0
		ip addr add fd00:10:244:1::1/64 dev cni0 nodad
	`)
	for _, e := range attached.Endpoints {
		bridge := "cni0"
		if strings.HasPrefix(e.Name, "alien") {
			bridge = "foreign"
		}
		n.sh("n1", "ip link set veth-"+e.Name+" master "+bridge)
	}
	n.rules(Compile(s, s.Nodes[0], host))
	return n
}

// rules makes n1 hold a table, and checks that it does.
func (n *network) rules(want nft.Table) {
	n.t.Helper()
	err := n.Node("n1").Do(func() error {
		w, err := nft.OpenWriter()
		if err != nil {
			return err
		}
		r, err := nft.OpenReader()
		if err != nil {
			return errors.Join(err, w.Close())
		}
		defer r.Close()
		observed, gen, err := r.Read(context.Background(), want.ID())
		if err == nil {
			_, err = w.Commit(context.Background(), nft.Diff(nft.Ruleset{want}, observed), gen)
		}
		if err == nil {
			observed, _, err = r.Read(context.Background(), want.ID())
		}
		if rest := nft.Diff(nft.Ruleset{want}, observed); err == nil && !rest.Empty() {
			err = fmt.Errorf("there remains\n%s", rest)
		}
		return errors.Join(err, w.Close())
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) sh(machine, script string) string {
	n.t.Helper()
	out, err := n.Machine(machine).Command(context.Background(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		n.t.Fatalf("on %s: %v\n%s", machine, err, out)
	}
	return string(out)
}

var counterPattern = regexp.MustCompile(`counter (\w+) \{\s+packets (\d+)`)

// counters are the frames dropped so far, by reason. Those without any are left
// out.
func (n *network) counters() map[drop.Reason]int { return n.counted("bridge") }

// counted are those of a table polder.
func (n *network) counted(family string) map[drop.Reason]int {
	n.t.Helper()
	counted := make(map[drop.Reason]int)
	for _, m := range counterPattern.FindAllStringSubmatch(n.sh("n1", "nft list counters table "+family+" polder"), -1) {
		i, err := strconv.Atoi(m[2])
		if err != nil {
			n.t.Fatal(err)
		}
		if i > 0 {
			counted[drop.Reason(m[1])] = i
		}
	}
	return counted
}

// attempt is something that a pod sends, all of it in one go.
type attempt struct {
	from   string
	frames [][]byte
	// to is where they arrive unless they are dropped: a pod, or "gateway".
	to     string
	reason drop.Reason // "": they arrive
}

// tap opens a tap where frames to a pod, or to the node itself, arrive.
func (n *network) tap(to string) *lab.Tap {
	n.t.Helper()
	machine, link := n.Machine(to), "eth0"
	if to == "gateway" {
		machine, link = n.Node("n1"), "cni0"
	}
	tap, err := machine.Tap(link)
	if err != nil {
		n.t.Fatal(err)
	}
	return tap
}

// run sends what is attempted and checks what becomes of it.
func (n *network) run(attempts map[string]attempt) {
	t := n.t
	defer func() { n.t = t }()
	for name, a := range attempts {
		t.Run(name, func(t *testing.T) {
			n.t = t
			tap := n.tap(a.to)
			defer tap.Close()
			before := n.counters()
			if err := n.Machine(a.from).Inject("eth0", a.frames...); err != nil {
				t.Fatal(err)
			}
			if a.reason == "" {
				n.arrives(tap, a.frames)
				if after := n.counters(); fmt.Sprint(after) != fmt.Sprint(before) {
					t.Errorf("counted %v, before %v", after, before)
				}
				return
			}
			for deadline := time.Now().Add(2 * time.Second); n.counters()[a.reason] == before[a.reason]; {
				if time.Now().After(deadline) {
					t.Fatalf("not counted as %s: %v, before %v", a.reason, n.counters(), before)
				}
			}
			n.missing(tap, a.frames)
		})
	}
}

// same says that a frame is one that was sent. The tap leaves tags out.
func same(got lab.Frame, sent []byte) bool {
	tail := sent[max(14, len(sent)-36):]
	return !got.Outgoing && bytes.HasSuffix(got.Data, tail)
}

func (n *network) arrives(tap *lab.Tap, frames [][]byte) {
	n.t.Helper()
	for i, sent := range frames {
		_, err := tap.Wait(time.Now().Add(2*time.Second), func(got lab.Frame) bool { return same(got, sent) })
		if err != nil {
			n.t.Fatalf("frame %d did not arrive: %v; counted %v", i, err, n.counters())
		}
	}
}

// missing checks that some of the frames has not arrived: of fragments, those
// that are left mean nothing.
func (n *network) missing(tap *lab.Tap, frames [][]byte) {
	n.t.Helper()
	got, err := tap.Drain()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, sent := range frames {
		if !slices.ContainsFunc(got, func(g lab.Frame) bool { return same(g, sent) }) {
			return
		}
	}
	n.t.Errorf("%s received all of it", tap.Machine)
}

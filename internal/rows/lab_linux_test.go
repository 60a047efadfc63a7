package rows

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/station"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

const topology = `
link "lan" {}
node "n1" {
  link "lan" {}
}
node "n2" {
  link "lan" {}
}
`

// network is the world as a lab.
type network struct {
	*lab.Lab
	dir      string // of state
	machines map[string]*machine
	sequence uint32
	cpu      unix.CPUSet // by which all packets are sent
}

// up makes the lab and has every node apply the world without policies.
func up(t *testing.T, number int) *network {
	t.Helper()
	// To the lab, the markers are pods as any other.
	n := raise(t, number, world(markers...))
	nothing := &example{}
	sp, _ := nothing.must(t)
	n.apply(t, sp)
	for _, p := range markers {
		n.sh(t, p.node, "ip link set v-"+p.machine+" master cni0 up")
	}
	for _, p := range hosts {
		for i, node := range nodeNames {
			at := nodes.find(node)
			n.sh(t, p.machine, fmt.Sprintf("ip route add 10.244.%d.0/24 via %s; ip -6 route add fd00:10:244:%[1]d::/64 via %[3]s", i+1, at.IPv4, at.IPv6))
		}
	}
	n.ready(t)
	return n
}

// raise makes the lab of a spec.
func raise(t *testing.T, number int, text string) *network {
	t.Helper()
	topology := topology
	for _, p := range hosts {
		topology += fmt.Sprintf("host %q {\n  link \"lan\" { addresses = [\"%s/24\", \"%s/64\"] }\n}\n", p.machine, p.IPv4, p.IPv6)
	}
	parsed, diags := lab.ParseTopology("rows.lab.hcl", []byte(topology))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "polder.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	config, _, diags := policy.Load(dir, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	l, err := lab.Up(context.Background(), parsed, config.Spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &network{Lab: l, dir: t.TempDir(), machines: map[string]*machine{}, cpu: cpu(t, number)}
}

// ready opens the sockets of all machines.
func (n *network) ready(t *testing.T) {
	t.Helper()
	for _, name := range n.Names() {
		m, err := station.Open(n.Machine(name), protocolGRE)
		if err != nil {
			t.Fatal(err)
		}
		n.machines[name] = m
		t.Cleanup(m.Close)
	}
	if err := n.machines[markers[1].machine].Listen(markerPort); err != nil {
		t.Fatal(err)
	}
	n.services(t)
}

// cpu is one of the CPUs that the test may use.
func cpu(t *testing.T, number int) (one unix.CPUSet) {
	t.Helper()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	left := number % all.Count()
	for i := 0; one.Count() == 0; i++ {
		if !all.IsSet(i) {
			continue
		}
		if left == 0 {
			one.Set(i)
		}
		left--
	}
	return one
}

// services has another program's table on each node translate what goes to the
// services.
func (n *network) services(t *testing.T) {
	t.Helper()
	var s strings.Builder
	s.WriteString("table inet services {\n")
	for _, chain := range [...]string{"prerouting", "output"} {
		fmt.Fprintf(&s, "chain %s {\ntype nat hook %[1]s priority -100;\n", chain)
		for _, p := range pods {
			for from, to := range servicePorts {
				fmt.Fprintf(&s, "ip daddr %s meta l4proto { tcp, udp, sctp } th dport %d dnat ip to %s:%d\n", p.service().IPv4, from, p.IPv4, to)
				fmt.Fprintf(&s, "ip6 daddr %s meta l4proto { tcp, udp, sctp } th dport %d dnat ip6 to [%s]:%d\n", p.service().IPv6, from, p.IPv6, to)
			}
		}
		s.WriteString("}\n")
	}
	s.WriteString("}\n")
	for _, node := range nodeNames {
		n.sh(t, node, "nft -f - <<'end'\n"+s.String()+"end")
		// The nodes' own way to the services.
		n.sh(t, node, "ip route add 10.96.0.0/16 dev eth0; ip -6 route add fd00:10:96::/64 dev eth0")
	}
}

// sh runs a shell command on a machine.
func (n *network) sh(t *testing.T, machine, command string) {
	t.Helper()
	out, err := n.Machine(machine).Command(context.Background(), "sh", "-ec", command).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) || err != nil {
		t.Fatalf("on %s: %s: %v\n%s", machine, command, err, out)
	}
}

// apply makes every node match a spec, and forget the connections of before.
func (n *network) apply(t *testing.T, sp *spec.Spec) {
	t.Helper()
	for _, node := range nodeNames {
		err := n.Node(node).Do(func() (err error) {
			a, err := reconcile.OpenApplier(reconcile.Options{Spec: sp, Node: node, StateDir: filepath.Join(n.dir, node)})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			plan, err := a.Plan(context.Background(), reconcile.ModeApply)
			if err != nil {
				return err
			}
			if len(plan.Conflicts) > 0 {
				return fmt.Errorf("conflicts: %+v", plan.Conflicts)
			}
			result, err := a.Apply(context.Background(), plan, func(reconcile.Outcome) {})
			if err != nil {
				return err
			}
			for _, o := range result.Failed() {
				err = errors.Join(err, o.Err)
			}
			if len(result.Remaining) > 0 {
				err = errors.Join(err, fmt.Errorf("remaining: %+v", result.Remaining))
			}
			return errors.Join(err, netlink.ConntrackTableFlush(netlink.ConntrackTable))
		})
		if err != nil {
			t.Fatalf("applying on %s: %v", node, err)
		}
	}
}

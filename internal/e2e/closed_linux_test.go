package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// TestABootOfDamagedFiles: where the ruleset cannot be loaded, isolated workloads
// are closed, and where it is not known who they are, all that are behind a bridge.
// The node reaches everybody and is reached, and an apply ends it.
func TestABootOfDamagedFiles(t *testing.T) {
	t.Parallel()
	n := up(t, cluster{backend: backendDirect, pods: dual, more: `
policy "p12" {
  selector = "pod == 'p12'"
  types = ["ingress", "egress"]
  ingress {
    action = "allow"
  }
  egress {
    action = "allow"
  }
}`})
	n.applyAll()
	// Without a ruleset nothing is masqueraded, and answers find their way all the same.
	n.sh("r1", "ip route add 10.244.1.0/24 via 192.0.2.11; ip -6 route add fd00:10:244:1::/64 via 2001:db8:2::11")
	dir := filepath.Join(t.TempDir(), "boot")
	options := n.options("n1", n.spec)
	options.BootDir = dir
	apply := func() {
		n.t.Helper()
		n.applyWith("n1", options)
	}
	apply()
	files := map[string][]byte{}
	for _, name := range []string{"last-ruleset.json", "last-isolated.json"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	wire, err := n.lab.Wire(8472)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := wire.Close(); err != nil {
			t.Error(err)
		}
	}()
	passes := func(when, from, to string, f spec.Family, want bool) {
		t.Helper()
		// What is to be lost has as much time as what comes beside it takes at most.
		timeout := patience
		if !want {
			timeout = 200 * time.Millisecond
		}
		r, err := wire.Probe(lab.Flow{From: n.lab.Machine(from), To: n.lab.Machine(to), Addr: n.addressOf(to, f), Protocol: lab.UDP, Timeout: timeout})
		if err != nil || r.Reached != want || r.Answered != want {
			t.Errorf("%s: %s to %s over %s: %v, want %t: %+v", when, from, to, f, err, want, r)
		}
	}
	for _, c := range []struct {
		name     string
		damaged  []string
		says     string
		isolated bool // it is known who is
	}{
		{"the ruleset", []string{"last-ruleset.json"}, "nothing is forwarded from or to the 2 addresses of endpoints that were isolated", true},
		{"both", []string{"last-ruleset.json", "last-isolated.json"}, "nothing is forwarded from or to any bridge", false},
	} {
		for name, b := range files {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range c.damaged {
			b := append([]byte(nil), files[name]...)
			b[len(b)-3] ^= 1
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// br_netfilter may not have been loaded yet.
		n.sh("n1", "nft flush ruleset; sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0")
		// p12 speaks under an address that nobody has.
		forge := func(action string) {
			n.sh("p12", "ip addr "+action+" 10.244.1.77/32 dev eth0; ip -6 addr "+action+" fd00:10:244:1::77/128 dev eth0 nodad")
			if action == "add" {
				n.sh("p12", "ip route replace default via 10.244.1.1 src 10.244.1.77; ip -6 route replace default via fd00:10:244:1::1 src fd00:10:244:1::77")
			} else {
				n.sh("p12", "ip route replace default via 10.244.1.1; ip -6 route replace default via fd00:10:244:1::1")
			}
		}
		forge("add")
		for _, f := range dual {
			passes(c.name+" before the boot, forged", "p12", "outside", f, true)
		}
		err := n.lab.Node("n1").Do(func() error {
			_, err := reconcile.Boot(context.Background(), dir)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: it says %v", c.name, err)
		}
		for _, f := range dual {
			passes(c.name+", forged", "p12", "outside", f, false)
		}
		forge("del")
		for _, f := range dual {
			for _, w := range []struct {
				from, to string
				pass     bool
			}{
				{"p11", "p12", false}, {"p12", "p11", false}, // over the bridge
				{"p21", "p12", false}, {"p12", "p21", false}, {"p12", "outside", false},
				{"p11", "p21", c.isolated}, {"p21", "p11", c.isolated}, {"p11", "outside", c.isolated},
				{"n1", "p12", true}, {"p12", "n1", true}, {"n1", "p11", true}, {"n1", "p21", true},
				{"outside", "n1", true}, {"n1", "outside", true}, {"n2", "n1", true},
			} {
				passes(c.name, w.from, w.to, f, w.pass)
			}
		}
		n.sh("n1", "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1")
		apply()
		if rules := n.ruleset("n1"); strings.Contains(rules, "closed_") {
			t.Errorf("%s: after an apply there is\n%s", c.name, rules)
		}
		for _, f := range dual {
			passes(c.name+" after an apply", "p11", "p12", f, true)
			passes(c.name+" after an apply", "p12", "p21", f, true)
		}
		for name, want := range files {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(b, want) {
				t.Errorf("%s: the apply left %s as it was (%v)", c.name, name, err)
			}
		}
	}
}

// applyWith is apply with options, and expects the kernel to match afterwards.
func (n *network) applyWith(node string, options reconcile.Options) {
	n.t.Helper()
	err := n.lab.Node(node).Do(func() error {
		a, err := reconcile.OpenApplier(options)
		if err != nil {
			return err
		}
		defer a.Close()
		plan, err := a.Plan(context.Background(), reconcile.ModeApply)
		if err != nil {
			return err
		}
		result, err := a.Apply(context.Background(), plan, func(reconcile.Outcome) {})
		if err == nil && len(result.Failed())+len(result.Remaining) > 0 {
			err = fmt.Errorf("failed %+v, remaining %+v", result.Failed(), result.Remaining)
		}
		return err
	})
	if err != nil {
		n.t.Fatalf("applying on %s: %v", node, err)
	}
}

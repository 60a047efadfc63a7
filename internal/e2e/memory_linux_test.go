package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/reconcile"
)

// switches are those of the host that a dual stack network writes.
const switches = "cd /proc/sys/net; for f in ipv4/ip_forward ipv6/conf/all/forwarding bridge/bridge-nf-call-iptables bridge/bridge-nf-call-ip6tables; do echo $f $(cat $f); done"

// clearSwitches sets all of them to 0.
const clearSwitches = "cd /proc/sys/net; for f in ipv4/ip_forward ipv6/conf/all/forwarding bridge/bridge-nf-call-iptables bridge/bridge-nf-call-ip6tables; do echo 0 >$f; done"

// TestSwitchesComeBack: what the host's sysctls were before is what they are
// after destroy, also when several applies came between.
func TestSwitchesComeBack(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", clearSwitches+"; echo 1 >bridge/bridge-nf-call-iptables")
	before := n.sh("n1", switches)
	// What a run leaves that is killed while it writes.
	n.sh("n1", "mkdir "+filepath.Join(n.dir, "n1")+"; echo '{' >"+filepath.Join(n.dir, "n1", "remembered.json.new"))
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.sh("n1", "echo 0 >/proc/sys/net/ipv4/ip_forward") // drift
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.apply("n1", nil, reconcile.ModeDestroy)
	if after := n.sh("n1", switches); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	n.expectForgotten("n1")
}

// TestHostThatForwardsByLink: on a host that forwards, but on which new links do
// not, pods are reached all the same.
func TestHostThatForwardsByLink(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	for _, node := range nodeNames {
		n.sh(node, "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding; echo 0 >ipv4/conf/default/forwarding; echo 0 >ipv6/conf/default/forwarding")
	}
	n.applyAll()
	for _, to := range []string{"10.244.2.5", "fd00:10:244:2::5"} {
		if sent, received := n.ping("p11", to).stop(); received == 0 {
			t.Errorf("%d packets to %s, and none is answered", sent, to)
		}
	}
}

// TestSwitchesNoLongerWanted: a spec without IPv6 puts back what IPv6 alone
// needed, and IPv4 goes on.
func TestSwitchesNoLongerWanted(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", clearSwitches)
	n.apply("n1", n.spec, reconcile.ModeApply)
	only4, _ := cluster{backend: backendVXLAN, pods: ipv4}.text()
	n.apply("n1", load(t, only4), reconcile.ModeApply)
	n.expectNothing(load(t, only4))
	want := strings.NewReplacer("ip_forward 0", "ip_forward 1", "iptables 0", "iptables 1").Replace(
		"ipv4/ip_forward 0\nipv6/conf/all/forwarding 0\nbridge/bridge-nf-call-iptables 0\nbridge/bridge-nf-call-ip6tables 0\n")
	if now := n.sh("n1", switches); now != want {
		t.Errorf("without IPv6:\n%swant\n%s", now, want)
	}
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.apply("n1", nil, reconcile.ModeDestroy)
	if now := n.sh("n1", switches); strings.Contains(now, "1") {
		t.Errorf("after destroy:\n%s", now)
	}
}

// TestReleaseKeepsSwitches: after release nothing is polder's to put back.
func TestReleaseKeepsSwitches(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", clearSwitches)
	n.apply("n1", n.spec, reconcile.ModeApply)
	written := n.sh("n1", switches)
	n.apply("n1", nil, reconcile.ModeRelease)
	n.apply("n1", nil, reconcile.ModeDestroy)
	if now := n.sh("n1", switches); now != written {
		t.Errorf("after release and destroy:\n%swant\n%s", now, written)
	}
	n.expectForgotten("n1")
}

// TestMemoryIsLost: a destroy that cannot put the switches back says so. One that
// can, or that finds nothing of ours, or a host that does not forward, does not.
func TestMemoryIsLost(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", clearSwitches)
	expect := func(when string, words ...string) {
		t.Helper()
		warnings := strings.Join(n.plan("n1", nil, reconcile.ModeDestroy).Warnings, "\n")
		if len(words) == 0 && warnings != "" {
			t.Errorf("%s: %s", when, warnings)
		}
		for _, word := range words {
			if !strings.Contains(warnings, word) {
				t.Errorf("%s the warnings leave out %q: %q", when, word, warnings)
			}
		}
	}
	n.sh("n1", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	expect("before the first apply")
	n.sh("n1", clearSwitches)
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.sh("n1", "ip link set veth1 nomaster; ip link set veth2 nomaster") // whose network would go is another warning
	expect("with its memory")
	dir := filepath.Join(n.dir, "n1")
	n.sh("n1", "rm -r "+dir)
	expect("without its memory", "net.ipv4.ip_forward=1 and net.ipv6.conf.all.forwarding=1", dir, "--state-dir")
	n.sh("n1", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
	expect("without its memory and IPv6", "net.ipv4.ip_forward=1 among them")
	n.sh("n1", clearSwitches)
	expect("on a host that does not forward")
}

// TestNothingCanBeRemembered: with a state directory that cannot be written,
// what is the host's own is left as it is, and the rest is done.
func TestNothingCanBeRemembered(t *testing.T) {
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", clearSwitches)
	before := n.sh("n1", switches)
	dir := filepath.Join(n.dir, "n1")
	n.sh("n1", "mkdir "+dir+"; mount --bind "+dir+" "+dir+"; mount -o remount,bind,ro "+dir)
	a := n.attempt("n1", n.spec, reconcile.ModeApply, "")
	if a.err != nil {
		t.Errorf("the whole apply failed: %v", a.err)
	}
	theirs := []string{
		"sysctl net.ipv4.ip_forward", "sysctl net.ipv6.conf.all.forwarding",
		"sysctl net.bridge.bridge-nf-call-iptables", "sysctl net.bridge.bridge-nf-call-ip6tables",
		"port veth1", "port veth2",
	}
	a.expectFailed(theirs...)
	a.expectRemaining(theirs...)
	for _, o := range a.result.Failed() {
		if !strings.Contains(o.Err.Error(), "read-only file system") {
			t.Errorf("%s failed, and the error does not say why: %v", subject(o.Change), o.Err)
		}
	}
	if now := n.sh("n1", switches); now != before {
		t.Errorf("changed without a record:\n%sinto\n%s", before, now)
	}
	n.sh("n1", "umount "+dir)
	n.apply("n1", n.spec, reconcile.ModeApply)
	n.expectNothing(n.spec)

	// Where there is nothing new to remember, nothing has to be written.
	n.sh("n1", "mount --bind "+dir+" "+dir+"; mount -o remount,bind,ro "+dir)
	a = n.attempt("n1", n.spec, reconcile.ModeApply, "")
	if a.err != nil || len(a.result.Outcomes) > 0 {
		t.Errorf("an apply of nothing: %v %+v", a.err, a.result)
	}
	n.sh("n1", "ip route del 10.244.2.0/24")
	a = n.attempt("n1", n.spec, reconcile.ModeApply, "")
	a.expectFailed()
	a.expectRemaining()
	if a.err != nil {
		t.Errorf("a repair that has nothing to remember: %v", a.err)
	}
	n.sh("n1", "umount "+dir)
}

// TestWhatForwardingTakesAlong: on a host that refuses redirects, and forwards
// on one link alone, the kernel overwrites both when forwarding is switched on
// and off. Destroy puts them back, also when a spec without IPv6 came between,
// or one that was killed before it had put back everything.
func TestWhatForwardingTakesAlong(t *testing.T) {
	const all = "grep -H . /proc/sys/net/ipv[46]/conf/*/forwarding /proc/sys/net/ipv4/conf/*/accept_redirects"
	n := up(t, cluster{backend: backendVXLAN, pods: dual})
	n.sh("n1", clearSwitches+`; ip link add apart0 type veth peer name apart1
		echo 0 >ipv4/conf/all/accept_redirects
		echo 1 >ipv4/conf/apart0/forwarding; echo 1 >ipv6/conf/apart1/forwarding; echo 1 >ipv4/conf/default/forwarding`)
	before := n.sh("n1", all)
	n.apply("n1", n.spec, reconcile.ModeApply)
	if during := n.sh("n1", all); during == before {
		t.Fatal("forwarding changes nothing: the test shows nothing")
	}
	only4, _ := cluster{backend: backendVXLAN, pods: ipv4}.text()
	n.apply("n1", load(t, only4), reconcile.ModeApply)
	n.expectNothing(load(t, only4))
	n.apply("n1", nil, reconcile.ModeDestroy)
	if after := n.sh("n1", all); after != before {
		t.Errorf("destroy leaves\n%s", difference(before, after))
	}
	n.expectForgotten("n1")

	n.apply("n1", n.spec, reconcile.ModeApply)
	n.sh("n1", "echo 0 >/proc/sys/net/ipv4/ip_forward") // and killed
	n.apply("n1", nil, reconcile.ModeDestroy)
	if after := n.sh("n1", all); after != before {
		t.Errorf("a second destroy leaves\n%s", difference(before, after))
	}
	n.expectForgotten("n1")
}

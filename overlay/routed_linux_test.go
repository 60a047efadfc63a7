package overlay

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// pod is a namespace behind a link of the host's.
func (h host) pod(link, setup string) func(command string) error {
	h.t.Helper()
	ns, err := lab.NewNamespace(link)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			h.t.Error(err)
		}
	})
	h.sh("ip link add " + link + " type veth peer name eth0-pod; ip link set eth0-pod netns " + ns.Path() + " name eth0; ip link set " + link + " up")
	run := func(command string) error {
		return ns.Do(func() error { return exec.Command("sh", "-ec", command).Run() })
	}
	if err := run("ip link set eth0 up; " + setup); err != nil {
		h.t.Fatal(err)
	}
	return run
}

// compile is what the node should have, on the host as it is.
func (h host) compile(sp *spec.Spec) (d *Desired) {
	h.t.Helper()
	err := h.ns.Do(func() error {
		r, err := OpenReader()
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		observed, err := r.Read(h.t.Context(), ScopeOf(sp, sp.Nodes[0]))
		if err == nil {
			d, err = Compile(sp, sp.Nodes[0], observed.Facts)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// proxies are those of the bridge, sorted.
func (h host) proxies() string {
	h.t.Helper()
	var list []string
	for line := range strings.Lines(h.sh("ip neigh show proxy dev cni0; ip -6 neigh show proxy dev cni0")) {
		list = append(list, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ", ")
}

// TestRoutedPods: where routes lead to pods of this node round the bridge, the node
// answers for them on the bridge, at once and for nobody else, while they are there.
func TestRoutedPods(t *testing.T) {
	sp := cluster{nodes: 2, families: dual, underlay: dual, backend: vxlan()}.spec()
	h := newHost(t)
	// Of another node, behind a gateway, of nobody, out of the pod network, of many.
	h.sh(`for link in cali1 cali3; do ip link add $link type veth peer name p$link; ip link set $link up; ip link set p$link up; done
		ip route add 10.244.2.9 dev cali3; ip route add 10.244.1.7 via 192.0.2.1; ip route add blackhole 10.244.1.8; ip route add 198.51.100.1 dev cali3; ip route add 10.244.1.64/26 dev cali3`)
	if d := h.compile(sp); len(d.Routed)+len(d.Proxies) != 0 || d.Sysctls[proxyDelay(spec.IPv4, "cni0")] != "" {
		t.Errorf("nobody is routed: %q, %v, %v", d.Routed, d.Proxies, d.Sysctls)
	}
	h.pod("cali2", `ip addr add 10.244.1.5/32 dev eth0; ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1
		ip -6 addr add fd00:10:244:1::5/128 dev eth0 nodad; ip -6 route add default via fe80::1 dev eth0`)
	h.sh(`ip addr add 169.254.1.1/32 dev cali2; ip -6 addr add fe80::1/64 dev cali2 nodad
		ip route add 10.244.1.5 dev cali2; ip -6 route add fd00:10:244:1::5 dev cali2
		ip route add 10.244.1.6 dev cali1; ip route add 10.244.1.6 dev cali3 metric 9`)
	if d := h.compile(sp); !slices.Equal(d.Routed, []string{"cali1", "cali2"}) {
		t.Errorf("routed are %q", d.Routed)
	}
	h.converge(sp)
	const first, second, third = "10.244.1.5 proxy proto 87", "10.244.1.6 proxy proto 87", "fd00:10:244:1::5 proxy proto 87"
	if got := h.proxies(); got != first+", "+second+", "+third {
		t.Errorf("the bridge answers for %s", got)
	}
	for _, f := range dual {
		if got := h.sh("cat /proc/sys/" + proxyDelay(f, "cni0")); got != "0\n" {
			t.Errorf("%s answers wait for %s", f, got)
		}
	}
	neighbour := h.pod("veth9", `ip addr add 10.244.1.20/24 dev eth0; ip -6 addr add fd00:10:244:1::20/64 dev eth0 nodad`)
	h.sh("ip link set veth9 master cni0")
	for _, address := range []string{"10.244.1.5", "fd00:10:244:1::5"} {
		if err := neighbour("ping -c 3 -i 0.2 -W 2 " + address); err != nil {
			t.Errorf("a pod on the bridge does not reach %s: %v", address, err)
		}
	}

	// With its last port the bridge loses its carrier, and with that the proxies, a
	// moment later (link_watch.c).
	h.sh("ip link set veth9 nomaster; while [ -n \"$(ip neigh show proxy; ip -6 neigh show proxy)\" ]; do :; done")
	h.converge(sp)
	if got := h.proxies(); got != first+", "+second+", "+third {
		t.Errorf("without a carrier it answers for %s", got)
	}

	// What goes down takes them along, and what is somebody else's is adopted or left.
	h.sh("ip link set cni0 down; ip link set cni0 up; ip neigh add proxy 10.244.1.5 dev cni0; ip neigh add proxy 10.244.1.99 dev cni0")
	h.converge(sp)
	if got := h.proxies(); got != first+", "+second+", 10.244.1.99 proxy, "+third {
		t.Errorf("after the bridge was down it answers for %s", got)
	}
	h.sh("ip route del 10.244.1.6 dev cali1; ip route del 10.244.1.6 dev cali3; ip -6 route del fd00:10:244:1::5 dev cali2")
	h.converge(sp)
	if got := h.proxies(); got != first+", 10.244.1.99 proxy" {
		t.Errorf("two are gone, and the bridge answers for %s", got)
	}
	err := h.ns.Do(func() error {
		r, err := OpenReader()
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		observed, err := r.Read(t.Context(), ScopeOf(sp, sp.Nodes[0]))
		if err == nil {
			h.apply(Release(observed.State))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if got := h.proxies(); got != "10.244.1.5 proxy, 10.244.1.99 proxy" {
		t.Errorf("released are %s", got)
	}
}

package policy

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

func TestMain(m *testing.M) { lab.Main(m) }

var (
	floodChanges = flag.Int("flood.changes", 100, "how often TestFlood changes the policies")
	floodCommits = flag.Int("flood.commits", 0, "how many transactions TestFlood goes on for, if its changes come to fewer")
)

// TestFlood changes policies while one thread sends as fast as it can. In every
// version db hears good and not bad, each time for another reason: a rule, a set,
// the other end's policies, another tier. Whatever a packet saw of two of them
// together, it would hear bad, or not hear good.
func TestFlood(t *testing.T) {
	f := newFlood(t)
	stop, sent := f.send()
	random := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	changes := 0
	for k := 0; changes < *floodChanges || f.transactions < *floodCommits; changes++ {
		if k < 2 && changes%8 != 0 {
			k = 1 - k // for a while, between the two that differ by a label
		} else if next := random.IntN(len(f.versions) - 1); next < k {
			k = next
		} else {
			k = next + 1 // another one
		}
		f.commit(f.versions[k])
		if changes%50 == 49 && f.heard("10.244.1.7") > 0 {
			break // it is wrong already
		}
	}
	close(stop)
	n := <-sent
	took := time.Since(began)
	good, bad := f.heard("10.244.1.6"), f.heard("10.244.1.7")
	t.Logf("%d changes in %d commits; %d packets of each, %.0f packets/s; %d lost, %d leaked",
		changes, f.transactions, n, 2*float64(n)/took.Seconds(), n-good, bad)
	if bad > 0 || good != n {
		t.Errorf("db heard bad %d times, and good %d times of %d", bad, good, n)
	}
}

// flood is a node with three pods on its bridge.
type flood struct {
	*lab.Lab
	t            *testing.T
	writer       *nft.Writer
	reader       *nft.Reader
	live         nft.Table
	versions     []*Model
	transactions int
}

func newFlood(t *testing.T) *flood {
	t.Helper()
	lab.Require(t)
	topology, diags := lab.ParseTopology("test.lab.hcl", []byte(`
		link "lan" {}
		node "n1" { 
		  link "lan" {} 
		}`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	versions := floodVersions()
	l, err := lab.Up(context.Background(), topology, versions[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &flood{Lab: l, t: t}
	f.sh("n1", `
		ip link add cni0 address 02:00:00:00:00:01 type bridge
		ip link set cni0 up
		ip addr add 10.244.1.1/24 dev cni0
		for p in db good bad; do ip link set veth-$p master cni0; done
		sysctl -qw net.bridge.bridge-nf-call-iptables=1`)
	f.sh("db", `
		nft add table ip heard
		nft add chain ip heard in '{ type filter hook prerouting priority -400; }'
		nft add rule ip heard in ip saddr 10.244.1.6 counter
		nft add rule ip heard in ip saddr 10.244.1.7 counter`)
	err = f.Node("n1").Do(func() (err error) {
		if f.writer, err = nft.OpenWriter(); err != nil {
			return err
		}
		f.reader, err = nft.OpenReader()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.live = nft.Table{Family: nft.INet, Name: nft.TableName}
	for _, v := range versions {
		m, _ := New(v)
		f.versions = append(f.versions, m)
	}
	f.commit(f.versions[0])
	return f
}

func (f *flood) sh(machine, script string) string {
	f.t.Helper()
	out, err := f.Machine(machine).Command(context.Background(), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		f.t.Fatalf("on %s: %v\n%s", machine, err, out)
	}
	return string(out)
}

// commit puts a version into force.
func (f *flood) commit(m *Model) {
	f.t.Helper()
	c := Compile(m, Host{Node: m.spec.Nodes[0], Bridge: "cni0"}, f.live)
	next, via := c.Table, make([]nft.Ruleset, len(c.Via))
	for i, t := range c.Via {
		via[i] = nft.Ruleset{t}
	}
	gen, err := f.reader.Generation()
	if err != nil {
		f.t.Fatal(err)
	}
	var before nft.Ruleset
	if len(f.live.Chains) > 0 {
		before = nft.Ruleset{f.live}
	}
	plan := nft.Through(before, append(via, nft.Ruleset{next})...)
	if _, err := f.writer.Commit(context.Background(), plan, gen); err != nil {
		f.t.Fatalf("%v\n%s", err, plan)
	}
	now, err := f.reader.Generation()
	if err != nil {
		f.t.Fatal(err)
	}
	f.transactions += int(now - gen)
	f.live = next
}

// send has good and bad send datagrams to db in turn, until stop is closed, and
// then says how many each sent.
func (f *flood) send() (stop chan struct{}, sent chan int) {
	f.t.Helper()
	var fds []int
	for _, pod := range []string{"db", "good", "bad"} {
		var fd int
		err := f.Pod(pod).Do(func() (err error) {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
		if err != nil {
			f.t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	f.t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	db := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 244, 1, 5}}
	// Without a socket, db would answer each with an error.
	if err := unix.Bind(fds[0], db); err != nil {
		f.t.Fatal(err)
	}
	stop, sent = make(chan struct{}), make(chan int)
	failed := func(err error) {
		f.t.Error(err)
		<-stop
		sent <- -1
	}
	go func() {
		for n := 0; ; n++ {
			if n%64 == 0 {
				select {
				case <-stop:
					sent <- n
					return
				default:
				}
			}
			for _, fd := range fds[1:] {
				if err := unix.Sendto(fd, []byte("x"), 0, db); err != nil {
					failed(err)
					return
				}
			}
		}
	}()
	return stop, sent
}

// heard is how many packets from an address came to db.
func (f *flood) heard(from string) int {
	f.t.Helper()
	out := f.sh("db", "nft list table ip heard")
	m := regexp.MustCompile(`saddr ` + regexp.QuoteMeta(from) + ` counter packets (\d+)`).FindStringSubmatch(out)
	if m == nil {
		f.t.Fatalf("no counter of %s in\n%s", from, out)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// floodVersions are specs in all of which good reaches db, and bad does not.
func floodVersions() []*spec.Spec {
	from := func(action spec.Action, label string) spec.Rule {
		r := spec.Rule{Action: action}
		if label != "" {
			s, _ := selector.Parse(label)
			r.Peers = []spec.Peer{{Endpoints: &spec.PeerSelector{Selector: s}}}
		}
		return r
	}
	policy := func(name, tier, subject string, d spec.Direction, rules ...spec.Rule) *spec.Policy {
		s, _ := selector.Parse(subject)
		p := &spec.Policy{Kind: spec.KindPolicy, Name: name, Tier: tier, Selector: s, Types: []spec.Direction{d}}
		if d == spec.Ingress {
			p.Ingress = rules
		} else {
			p.Egress = rules
		}
		return p
	}
	db := func(rules ...spec.Rule) *spec.Policy {
		return policy("db", spec.DefaultTier, "name == 'db'", spec.Ingress, rules...)
	}
	version := func(good, bad string, policies ...*spec.Policy) *spec.Spec {
		s := &spec.Spec{
			Nodes: []*spec.Node{{Name: "n1", Addresses: []spec.NodeAddress{{Addr: netip.MustParseAddr("192.0.2.11"), Link: netip.MustParsePrefix("192.0.2.0/24")}}, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}},
			Tiers: []*spec.Tier{
				{Name: "platform", Order: 1, DefaultAction: spec.Pass},
				{Name: spec.DefaultTier, Order: spec.DefaultTierOrder, DefaultAction: spec.Deny},
			},
			Policies: policies,
		}
		for i, e := range []struct{ name, x string }{{"db", ""}, {"good", good}, {"bad", bad}} {
			s.Endpoints = append(s.Endpoints, &spec.Endpoint{
				Name: e.name, Node: "n1", Namespace: "default", Interface: "veth-" + e.name,
				Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.244.1.%d", 5+i))},
				Labels:    map[string]string{"name": e.name, "x": e.x},
			})
		}
		return s
	}
	// Bad is allowed in while it is kept from going out, and the other way round;
	// all that changes is its label.
	relabelled := []*spec.Policy{
		policy("bad", spec.DefaultTier, "name == 'bad' && x == '1'", spec.Egress),
		policy("db-out", spec.DefaultTier, "name == 'db'", spec.Egress, from(spec.Allow, "")),
		db(from(spec.Allow, "x in {'1', '2'}")),
	}
	return []*spec.Spec{
		version("2", "1", relabelled...),
		version("2", "3", relabelled...),
		version("", "1", db(from(spec.Deny, "x == '1'"), from(spec.Allow, ""))),
		version("1", "", db(from(spec.Allow, "x == '1'"), from(spec.Deny, ""))),
		version("", "1", db(from(spec.Allow, "x == ''"))),
		// The same rules, and the sets change places.
		version("1", "2", db(from(spec.Deny, "x == '2'"), from(spec.Allow, "x == '1'"))),
		version("2", "1", db(from(spec.Deny, "x == '1'"), from(spec.Allow, "x == '2'"))),
		// Bad is kept in rather than out.
		version("1", "2", policy("bad", spec.DefaultTier, "x == '2'", spec.Egress)),
		version("2", "1", policy("all", spec.DefaultTier, "x != ''", spec.Egress, from(spec.Deny, "x == '1'"), from(spec.Allow, "")), db(from(spec.Allow, "x == '2'"))),
		// Another tier decides.
		version("1", "2", policy("p", "platform", "all()", spec.Ingress, from(spec.Deny, "x == '2'"), from(spec.Pass, "")), db(from(spec.Allow, ""))),
		version("2", "1", policy("p", "platform", "all()", spec.Ingress, from(spec.Allow, "x == '2'"), from(spec.Pass, "")), db()),
	}
}

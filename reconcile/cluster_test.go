package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
	"github.com/poldernet/polder/spec/selector"
)

// fakeCluster tells what a test tells it.
type fakeCluster chan Update

func (c fakeCluster) Watch(ctx context.Context, tell func(Update)) {
	for {
		select {
		case u := <-c:
			tell(u)
		case <-ctx.Done():
			return
		}
	}
}

func (fakeCluster) Publish(NodeState) {}

// Find fails, as of a cluster that is away.
func (fakeCluster) Find(context.Context, attach.Pod) error { return errors.New("it is away") }

func (c fakeCluster) open(*spec.Kubernetes) Cluster { return c }

// followed is the block of a spec that names a cluster.
const followed = "kubernetes {}\n"

func pod(i int, labels map[string]string) policy.Event {
	node := fmt.Sprintf("n%d", 1+i%2)
	return policy.Event{Endpoint: &spec.Endpoint{
		Name: fmt.Sprintf("shop/pod-%d", i), Namespace: "shop", Node: node, Labels: labels,
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(1 + i%2), byte(100 + i)})},
	}}
}

// allows is a policy that lets pods with an app reach those with another.
func allows(name, from, to string) policy.Event {
	order := 1000.0
	return policy.Event{Policy: &spec.Policy{
		Kind: spec.KindNetworkPolicy, Name: "shop/" + name, Namespace: "shop", Tier: spec.DefaultTier, Order: &order,
		Selector: selector.Equals("app", to), Types: []spec.Direction{spec.Ingress},
		Ingress: []spec.Rule{{Action: spec.Allow, Peers: []spec.Peer{{Endpoints: &spec.PeerSelector{Selector: selector.Equals("app", from)}}}}},
	}}
}

func app(name string) map[string]string { return map[string]string{"app": name} }

// What a cluster tells is in force soon, beside what the spec says, and nothing
// has to be read for it. Plans for others, files that change,
// drift and refusals come between.
func TestACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(3, 3))
		h := newFakeHost(t, nodes(2)+guarded+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		cluster <- Update{Events: []policy.Event{pod(0, app("web")), allows("first", "web", "db")}, Complete: true}
		h.settle()

		beside := policy.NewInventory()
		beside.Apply(pod(0, app("web")))
		beside.Apply(allows("first", "web", "db"))
		var apps = []string{"web", "db", "cache"}
		for i := range 300 {
			e := pod(random.IntN(6), app(apps[random.IntN(3)]))
			if random.IntN(4) == 0 {
				e = allows(fmt.Sprint("p", random.IntN(3)), apps[random.IntN(3)], apps[random.IntN(3)])
			}
			e.Gone = random.IntN(4) == 0
			events := []policy.Event{e}
			quiet := false
			switch i % 10 {
			case 2:
				if _, err := h.Plan(context.Background(), ModeApply); err != nil {
					t.Fatal(err)
				}
			case 3:
				h.damage("ip route del 10.244.2.0/24")
			case 5:
				h.do(func() { h.rules.Delete("somebody", tables[0]) })
			case 6:
				h.do(func() { h.rules.Put("kube-proxy", nft.Table{Family: nft.IP, Name: "kube-proxy"}) })
			case 7:
				h.refused, h.refusal = map[objectKey]int{rulesKey: 1}, errRefused
			case 8:
				h.source.write(parsed(t, nodes(2)+followed+strings.Replace(guarded, "80/tcp", fmt.Sprintf("%d/tcp", 80+i), 1)))
			case 9:
				more := pod(random.IntN(6), app("web"))
				events = append(events, more)
			default:
				quiet = true
			}
			before := h.reads()
			cluster <- Update{Events: events}
			for _, e := range events {
				beside.Apply(e)
			}
			h.settle()
			if reads := h.reads() - before; quiet && reads > 0 {
				t.Fatalf("event %d made the daemon read %d times", i, reads)
			}
			h.pass(time.Second)
			if c := h.Condition(); !c.InSync || len(c.Failures) > 0 {
				t.Fatalf("after event %d the daemon says %q, failures %+v\n%s", i, c, c.Failures, h.story(0))
			}
			h.asTold(beside)
		}
	})
}

// What a pod comes to is put into force with the nodes of the cluster in view: the
// guard of VXLAN lets nobody in whom it does not know.
func TestAPodOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(0)+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		cluster <- Update{Nodes: are(member(1), member(2)), Complete: true}
		h.settle()
		reads := h.reads()
		cluster <- Update{Events: []policy.Event{pod(1, app("web")), allows("first", "web", "web")}}
		h.settle()
		if h.reads() != reads {
			t.Fatal("the kernel was read, and all was compiled anew: the test shows nothing")
		}
		plan, err := h.Plan(context.Background(), ModeApply)
		if err != nil || !plan.Empty() {
			t.Errorf("a plan has %v, %v", plan.Changes, err)
		}
	})
}

// reads counts readings of the kernel.
func (h *fakeHost) reads() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count["read"] + h.count["refresh"] + h.count["rules"]
}

// asTold fails the test unless the kernel is as the spec and an inventory say.
func (h *fakeHost) asTold(beside *policy.Inventory) {
	h.t.Helper()
	quiet := &fakeKernel{network: h.network, rules: h.rules, count: map[string]int{}}
	sp := beside.Beside(h.source.current.config.Spec)
	sp.Kubernetes = nil
	p := &Planner{options: Options{Spec: sp, Node: "n1", StateDir: h.dir}, network: fakeNetwork{quiet}, ruleset: fakeRuleset{quiet}}
	plan, err := p.Plan(context.Background(), ModeApply)
	if err != nil {
		h.t.Fatal(err)
	}
	if !plan.Empty() {
		h.t.Fatalf("a plan from scratch has %v\n%s", plan.Changes, h.story(0))
	}
}

// What comes after a pause is in force at once, and what follows it waits for more, but
// not for ever.
func TestTheFirstEventDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+guarded+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		beside := policy.NewInventory()
		tell := func(e policy.Event) {
			beside.Apply(e)
			cluster <- Update{Events: []policy.Event{e}}
			h.pass(roundQuiet / 4) // an access takes a little
			h.do(func() {})        // as in pass
		}
		cluster <- Update{Complete: true}
		tell(allows("first", "web", "web"))
		h.settle()
		before := h.rounds()
		for i := range 200 { // 100 ms
			tell(pod(i%7, app([]string{"web", "db"}[i%14/7])))
			if i == 0 {
				h.asTold(beside)
			}
			h.pass(roundQuiet / 4)
		}
		if n := h.rounds() - before; n < 5 || n > 7 {
			t.Errorf("100 ms of events led to %d rounds", n)
		}
		h.settle()
		tell(pod(1, app("db")))
		h.asTold(beside)
		before = h.rounds()
		tell(pod(2, app("db")))
		if h.rounds() != before {
			t.Error("what follows at once does not wait")
		}
		h.pass(roundQuiet)
		h.do(func() {})
		h.asTold(beside)
	})
}

// Until the cluster has told of everything, what is in the kernel stays: a policy
// that is not known yet is not one that is gone.
func TestAClusterThatIsNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+followed)
		h.rules.Put("boot", nft.Table{Family: nft.INet, Name: nft.TableName, Counters: []string{"from before"}})
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		cluster <- Update{Events: []policy.Event{pod(0, app("db"))}}
		h.pass(time.Hour)
		if text := h.ruleset(); !strings.Contains(text, "from before") {
			t.Fatalf("what was there is gone:\n%s", text)
		}
		cluster <- Update{Events: []policy.Event{allows("first", "web", "db")}, Complete: true}
		h.settle()
		if text := h.ruleset(); strings.Contains(text, "from before") || !strings.Contains(text, "10.244.1.100 : jump") {
			t.Fatalf("not in force:\n%s", text)
		}
	})
}

// A namespace that is in the spec as well is the spec's again when the cluster's
// is gone.
func TestANamespaceOfBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+guarded+followed+`namespace "shop" { labels = { team = "shop" } }
policy "team" {
  selector           = "all()"
  namespace_selector = "team == 'shop'"
}
`)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		shop := &spec.Namespace{Name: "shop", Labels: map[string]string{"team": "other"}}
		cluster <- Update{Events: []policy.Event{pod(0, app("cache")), {Namespace: shop}}, Complete: true}
		h.settle()
		if text := h.ruleset(); strings.Contains(text, "10.244.1.100 : jump") {
			t.Fatalf("selected by labels that the cluster's namespace has not:\n%s", text)
		}
		cluster <- Update{Events: []policy.Event{{Namespace: shop, Gone: true}}}
		h.settle()
		if text := h.ruleset(); !strings.Contains(text, "10.244.1.100 : jump") {
			t.Fatalf("not selected:\n%s", text)
		}
	})
}

// policyOnly is a spec without a network, whose nodes are the cluster's.
const policyOnly = "cluster = \"fake\"\n" + followed

// Nodes of the cluster are the model's, too, and one of them is ours.
func TestNodesOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, policyOnly)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		node := func(name, address string) spec.Candidate {
			return spec.Candidate{Name: name, Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr(address)}}
		}
		own := node("n1", "192.0.2.11")
		cluster <- Update{Nodes: are(node("n2", "192.0.2.12")), Events: []policy.Event{pod(0, app("db")), allows("first", "web", "db")}, Complete: true}
		h.settle()
		if c := h.Condition(); c.InSync || len(c.Failures) != 1 || !strings.Contains(c.Failures[0].Err.Error(), `node "n1" is not in the spec or in the cluster`) {
			t.Fatalf("without a node of ours: %q, %+v", c, c.Failures)
		}
		for _, addresses := range []string{"192.0.2.12", "192.0.2.13"} {
			cluster <- Update{Nodes: are(own, node("n2", addresses))}
			h.pass(time.Minute)
			if c := h.Condition(); !c.InSync || !strings.Contains(h.ruleset(), "10.244.1.100 : jump") {
				t.Fatalf("%q, %+v\n%s", c, c.Failures, h.ruleset())
			}
			if err := h.Ping(context.Background()); err != nil {
				t.Fatal(err)
			}
			if n := h.applier.index.Node(); n != "n1" {
				t.Fatalf("it is taken for %s", n)
			}
			if n2 := h.applier.nodes().all[1]; n2.Name != "n2" || n2.Addresses[0].Addr.String() != addresses {
				t.Fatalf("%s is not of n2, but of %+v", addresses, n2)
			}
		}
	})
}

// What all pods and policies come to is not computed anew because a node comes, or a
// link: of the one a large cluster has some every minute, and of the other each node.
// Nor are the rules read for that.
func TestAnIndexThatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, strings.Split(nodes(1), "node ")[0]+followed)
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		node := func(i int) spec.Candidate {
			return spec.Candidate{
				Name: fmt.Sprint("n", i), Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})},
				Subnets: spec.PerFamily[netip.Prefix]{IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)},
			}
		}
		cluster <- Update{Nodes: are(node(1), node(2)), Events: []policy.Event{pod(0, app("db")), allows("first", "web", "db")}, Complete: true}
		h.settle()
		before, reads := h.applier.version, h.count["rules"]
		h.do(func() { h.network.Plug("veth7") })
		h.settle()
		cluster <- Update{Nodes: are(node(3)), Events: []policy.Event{pod(2, app("db"))}}
		h.settle()
		if text := h.ruleset(); !h.Condition().InSync || !strings.Contains(text, "192.0.2.13") || !strings.Contains(text, "10.244.1.102 : jump") {
			t.Fatalf("%s, and not as told:\n%s", h.Condition(), text)
		}
		if now := h.applier.version; now != before {
			t.Errorf("the index was made anew %d times", now-before)
		}
		if now := h.count["rules"]; now != reads {
			t.Errorf("the rules were read %d times", now-reads)
		}
	})
}

// The first policy that a cluster tells of has the bridge show what passes it, which
// without policies is nobody's business.
func TestTheFirstPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, policyOnly)
		const show = "net/bridge/bridge-nf-call-iptables"
		if err := h.network.SetSysctl(show, "0"); err != nil {
			t.Fatal(err)
		}
		cluster := make(fakeCluster)
		h.run(DaemonOptions{Cluster: cluster.open})
		defer h.end()
		own := spec.Candidate{Name: "n1", Addresses: spec.PerFamily[netip.Addr]{IPv4: netip.MustParseAddr("192.0.2.11")}}
		cluster <- Update{Nodes: are(own), Events: []policy.Event{pod(0, app("db"))}, Complete: true}
		for _, want := range []string{"0", "1"} {
			h.settle()
			if now := h.network.Sysctls([]string{show})[show]; now != want {
				t.Fatalf("it is %s, and not %s\n%s", now, want, h.story(0))
			}
			cluster <- Update{Events: []policy.Event{allows("first", "web", "db")}}
		}
	})
}

// What a cluster told stays in force when nothing is heard of it, and is forgotten
// when the spec names it no longer, or another.
func TestAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost(t, nodes(2)+followed)
		clusters := map[string]fakeCluster{"": make(fakeCluster), "other": make(fakeCluster)}
		h.run(DaemonOptions{Cluster: func(k *spec.Kubernetes) Cluster { return clusters[strings.TrimPrefix(k.Kubeconfig, "/")] }})
		defer h.end()
		isolated := func(address string) bool { return strings.Contains(h.ruleset(), address+" : jump") }
		clusters[""] <- Update{Events: []policy.Event{pod(0, app("db")), allows("first", "web", "db")}, Complete: true}
		h.settle()
		began := time.Now()
		clusters[""] <- Update{Hearing: &Hearing{Err: errRefused}}
		h.pass(time.Hour)
		c := h.Condition()
		if !c.InSync || !c.Cluster.Known || !c.Cluster.Since.Before(began) || c.Cluster.Err == nil || !isolated("10.244.1.100") {
			t.Fatalf("%q: %+v", c, c.Cluster)
		}
		clusters[""] <- Update{Hearing: &Hearing{}}
		h.settle()
		if c := h.Condition(); c.Cluster.Err != nil {
			t.Fatalf("%+v", c.Cluster)
		}

		h.source.write(parsed(t, nodes(2)+strings.Replace(followed, "{}", "{\n kubeconfig = \"/other\"\n}", 1)))
		h.pass(time.Hour)
		if c := h.Condition(); c.Cluster.Known || c.InSync || !isolated("10.244.1.100") {
			t.Fatalf("before the other one is known: %q", c)
		}
		if _, _, err := h.Known(context.Background()); !errors.Is(err, errUnknown) || strings.Contains(err.Error(), "changed") {
			t.Fatalf("what is known: %v", err) // a question changes nothing
		}
		if _, err := h.Plan(context.Background(), ModeApply); !errors.Is(err, errUnknown) || !strings.Contains(err.Error(), "nothing is changed") {
			t.Fatalf("a plan before the other one is known: %v", err)
		}
		clusters["other"] <- Update{Events: []policy.Event{pod(2, app("db")), allows("first", "web", "db")}, Complete: true}
		h.pass(time.Minute)
		if isolated("10.244.1.100") || !isolated("10.244.1.102") {
			t.Fatalf("not that of the other cluster:\n%s", h.ruleset())
		}

		h.source.write(parsed(t, nodes(2)))
		h.pass(time.Minute)
		if c := h.Condition(); c.Cluster != nil || !c.InSync || isolated("10.244.1.102") {
			t.Fatalf("without a cluster: %q\n%s", c, h.ruleset())
		}
	})
}

// Who asks no cluster plans nothing for a spec that names one.
func TestAClusterThatIsNotAsked(t *testing.T) {
	h := newFakeHost(t, nodes(2)+followed)
	p := &Planner{options: Options{Spec: h.source.current.config.Spec, Node: "n1", StateDir: h.dir}, network: fakeNetwork{h.fakeKernel}, ruleset: fakeRuleset{h.fakeKernel}}
	if _, err := p.Plan(context.Background(), ModeApply); !errors.Is(err, ErrNotAsked) {
		t.Errorf("a plan: %v", err)
	}
	if _, err := p.Plan(context.Background(), ModeDestroy); err != nil {
		t.Errorf("a plan to destroy: %v", err)
	}
}

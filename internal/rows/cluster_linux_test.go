package rows

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/poldernet/polder/internal/cluster"
	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// kubernetes is the world as objects of an API server, with a daemon on each node
// that has them from there, beside a pod network that is somebody else's.
type kubernetes struct {
	*network
	api     *kubetest.API
	access  *rest.Config // what a daemon may do
	daemons map[string]*daemon
	// labelled are those whose label of a key is other than to begin with.
	labelled map[string]string
}

// rules are what a daemon may do, and no more.
var rules = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"nodes", "namespaces", "pods"}, Verbs: []string{"list", "watch"}},
	{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}},
	{APIGroups: []string{networkingv1.GroupName}, Resources: []string{"networkpolicies"}, Verbs: []string{"list", "watch"}},
	{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}},
}

// inKubernetes makes that world.
func inKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	lab.Require(t)
	api := kubetest.Start(t)
	text := world(markers...)
	before, rest, _ := strings.Cut(text, "network {")
	_, rest, _ = strings.Cut(rest, "\n}\n")
	k := &kubernetes{network: raise(t, 0, before+rest), api: api, daemons: map[string]*daemon{}, labelled: map[string]string{}}
	k.ready(t)
	for i, name := range nodeNames {
		at := nodes.find(name)
		api.Node(t, name, []string{at.IPv4.String(), at.IPv6.String()}, []string{fmt.Sprintf("10.244.%d.0/24", i+1), fmt.Sprintf("fd00:10:244:%d::/64", i+1)})
	}
	for name, labels := range namespaces {
		api.Namespace(t, name, labels)
	}
	for _, p := range pods {
		k.pod(t, p)
	}
	k.access = api.ServiceAccount(t, metav1.NamespaceSystem, "polder", rules...)
	for _, node := range nodeNames {
		k.daemons[node] = k.open(t, node)
		k.daemons[node].run(t)
		k.daemons[node].until(t, "the cluster is known and the node in sync", func(c reconcile.Condition) bool { return c.Cluster != nil && c.Cluster.Known && c.InSync })
	}
	return k
}

// namespaces are the world's, with their labels.
var namespaces = map[string]map[string]string{
	"x": {"ns": "x", "team": "red"}, "y": {"ns": "y"}, "z": {"ns": "z", "team": ""},
}

// pod makes a pod of the world.
func (k *kubernetes) pod(t *testing.T, p party) {
	t.Helper()
	namespace, name, _ := strings.Cut(p.name, "/")
	var ports []corev1.ContainerPort
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		for _, number := range []int32{80, 81} {
			ports = append(ports, corev1.ContainerPort{Name: fmt.Sprintf("serve-%d-%s", number, strings.ToLower(string(protocol))), ContainerPort: number, Protocol: protocol})
		}
	}
	if n := webOf[p.name]; n != 0 {
		ports = append(ports, corev1.ContainerPort{Name: "web", ContainerPort: int32(n)})
	}
	k.api.Pod(t, kubetest.Pod{
		Namespace: namespace, Name: name, Node: p.node, Labels: labelsInAPI(p), Ports: ports, IPs: []string{p.IPv4.String(), p.IPv6.String()},
	})
}

// labelsInAPI are a pod's labels.
func labelsInAPI(p party) map[string]string {
	_, name, _ := strings.Cut(p.name, "/")
	labels := map[string]string{"pod": name}
	if role, ok := labelsOf[p.name]; ok {
		labels["role"] = strings.Trim(strings.TrimPrefix(role, "role = "), `"`)
	}
	return labels
}

// daemon is `polder run` on a node, within the test's process, with the API server
// at an address of the node's.
type daemon struct {
	*reconcile.Daemon
	k      *kubernetes
	node   string
	source *cluster.Source
	wire   *kubetest.Forwarder
	stop   context.CancelFunc
	ended  chan error
}

func (k *kubernetes) open(t *testing.T, node string) *daemon {
	t.Helper()
	d := &daemon{k: k, node: node}
	at, n := netip.MustParseAddrPort("127.0.0.1:6443"), k.Node(node)
	var err error
	if d.wire, err = kubetest.Forward(n, at, k.api.Addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.wire.Close() })
	c := rest.CopyConfig(k.access)
	c.Host = "https://" + at.String()
	c.Dial = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.Do(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	d.source = cluster.New(node, func() (*rest.Config, error) { return c, nil })
	return d
}

// run runs the daemon until end, or the end of the test.
func (d *daemon) run(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "polder.hcl")
	if err := os.WriteFile(file, []byte("cluster = \"rows\"\nkubernetes {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d.stop, d.ended = stop, make(chan error, 1)
	opened := make(chan error)
	go func() {
		d.ended <- d.k.Node(d.node).Do(func() (err error) {
			d.Daemon, err = reconcile.OpenDaemon(reconcile.DaemonOptions{
				Source: reconcile.Source{Path: file}, Node: d.node, StateDir: filepath.Join(d.k.dir, d.node),
				Cluster: func(*spec.Kubernetes) reconcile.Cluster { return d.source },
			})
			opened <- err
			if err != nil {
				return err
			}
			d.Run(ctx)
			return d.Close()
		})
	}()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.end(t) })
}

// end stops it. What it has made stays.
func (d *daemon) end(t *testing.T) {
	t.Helper()
	d.stop()
	if err, first := <-d.ended; first {
		close(d.ended)
		if err != nil {
			t.Error(err)
		}
	}
}

// until waits until a daemon says that it stands so.
func (d *daemon) until(t *testing.T, what string, is func(reconcile.Condition) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kubetest.Patience)
	defer cancel()
	for !is(d.Condition()) {
		if d.Ping(ctx) != nil {
			t.Fatalf("on %s, not: %s; it says %q, %+v, %+v", d.node, what, d.Condition(), d.Condition().Cluster, d.Condition().Failures)
		}
	}
}

// told waits until every daemon has heard of so many events since, and nothing
// is left to be done about them.
func (k *kubernetes) told(t *testing.T, since map[string]uint64, events int) {
	t.Helper()
	for name, d := range k.daemons {
		d.until(t, fmt.Sprintf("%d events", events), func(c reconcile.Condition) bool { return c.Counters.Events >= since[name]+uint64(events) })
		for began := time.Now(); ; {
			plan, err := d.Plan(t.Context(), reconcile.ModeApply)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Empty() {
				break
			}
			if time.Since(began) > kubetest.Patience {
				t.Fatalf("on %s, still to be done: %+v", name, plan.Changes)
			}
		}
	}
}

// events are those that daemons have heard of.
func (k *kubernetes) events() map[string]uint64 {
	count := map[string]uint64{}
	for name, d := range k.daemons {
		count[name] = d.Condition().Counters.Events
	}
	return count
}

// put makes NetworkPolicies, or changes those of their names, and returns how many.
func (k *kubernetes) put(t *testing.T, yaml string) (count int) {
	t.Helper()
	for doc := range strings.SplitSeq(yaml, "---\n") {
		if doc == "" {
			continue
		}
		p := &networkingv1.NetworkPolicy{}
		if err := kubeyaml.UnmarshalStrict([]byte(doc), p); err != nil {
			t.Fatal(err)
		}
		client := k.api.Client.NetworkingV1().NetworkPolicies(p.Namespace)
		_, err := client.Create(t.Context(), p, metav1.CreateOptions{})
		if errors.IsAlreadyExists(err) {
			_, err = client.Update(t.Context(), p, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	return count
}

// clear deletes all NetworkPolicies and returns how many.
func (k *kubernetes) clear(t *testing.T) int {
	t.Helper()
	list, err := k.api.Client.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if err := k.api.Client.NetworkingV1().NetworkPolicies(p.Namespace).Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return len(list.Items)
}

// label sets a label of "NAMESPACE" or "NAMESPACE/POD", as "WHOM KEY=VALUE", or
// takes it away, as "WHOM KEY-".
func (k *kubernetes) label(t *testing.T, text string) {
	t.Helper()
	whom, label, _ := strings.Cut(text, " ")
	key, _, _ := strings.Cut(strings.TrimSuffix(label, "-"), "=")
	k.labelled[whom] = key
	k.relabel(t, text)
}

func (k *kubernetes) relabel(t *testing.T, text string) {
	t.Helper()
	whom, label, _ := strings.Cut(text, " ")
	key, value, set := strings.Cut(label, "=")
	patch := fmt.Sprintf(`{"metadata": {"labels": {%q: %q}}}`, key, value)
	if !set {
		patch = fmt.Sprintf(`{"metadata": {"labels": {%q: null}}}`, strings.TrimSuffix(key, "-"))
	}
	var err error
	if namespace, pod, ok := strings.Cut(whom, "/"); ok {
		_, err = k.api.Client.CoreV1().Pods(namespace).Patch(t.Context(), pod, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	} else {
		_, err = k.api.Client.CoreV1().Namespaces().Patch(t.Context(), whom, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tryAll is try for more than fits into a socket's buffer.
func (n *network) tryAll(t *testing.T, list []probe, limit time.Duration) (wrong []string) {
	t.Helper()
	for part := range slices.Chunk(list, batch) {
		wrong = append(wrong, n.try(t, part, limit)...)
	}
	return wrong
}

// TestKubernetes has an API server tell daemons of the cases of NetworkPolicies,
// and tries each with packets; then what Kubernetes' own tests try.
func TestKubernetes(t *testing.T) {
	k := inKubernetes(t)
	var mine []*example
	for _, c := range cases {
		if c.yaml != "" && c.hcl == "" && len(c.refused) == 0 && !strings.Contains(c.yaml, "twice") {
			mine = append(mine, c)
		}
	}
	all := &example{row: "networkpolicy", name: "everything", want: step{ports: "80/tcp 81/tcp 80/udp 81/udp 80/sctp 81/sctp"}.lines(t)}
	k.baseline(t, k.serve(t, append(mine, all)))
	for _, c := range mine {
		t.Run(c.String(), func(t *testing.T) {
			defer k.restore(t)
			before := k.events()
			k.told(t, before, k.put(t, c.yaml))
			for _, wrong := range k.tryAll(t, c.probes(t), patience) {
				t.Errorf("%s\nwith\n%s", wrong, c.yaml)
			}
		})
	}
	for _, s := range upstream {
		t.Run(s.title, func(t *testing.T) { k.tell(t, s) })
	}
	t.Run("latency", k.latency)
	t.Run("an API server that is away", k.away)
}

// restore takes all policies away, and gives pods and namespaces the labels that
// they had to begin with.
func (k *kubernetes) restore(t *testing.T) {
	t.Helper()
	before := k.events()
	count := k.clear(t)
	for whom, key := range k.labelled {
		change := whom + " " + key + "-"
		if old, ok := k.original(whom)[key]; ok {
			change = whom + " " + key + "=" + old
		}
		k.relabel(t, change)
		count++
	}
	clear(k.labelled)
	k.told(t, before, count)
}

// original are the labels that somebody had to begin with.
func (k *kubernetes) original(whom string) map[string]string {
	if p := pods.find(whom); p.name != "" {
		return labelsInAPI(p)
	}
	return namespaces[whom]
}

// latency measures how long after its beginning a write to the API server makes
// the last packet wrong.
func (k *kubernetes) latency(t *testing.T) {
	const writes = 60
	defer k.restore(t)
	c := &example{want: "x/b -> x/a 80/udp: deny\nz/b -> x/a 80/udp: deny\nx/a -> z/a 80/udp: allow"}
	var took []time.Duration
	for i := range writes {
		probes := c.probes(t)
		began := time.Now()
		if i%2 == 0 {
			k.put(t, np("x/p", nobody))
		} else {
			k.clear(t)
		}
		last := began
		for {
			for j := range probes {
				if probes[j].want = allow; i%2 == 0 && probes[j].to.name == "x/a" {
					probes[j].want = deny
				}
			}
			if len(k.try(t, probes, 0)) == 0 {
				break
			}
			if last = time.Now(); last.Sub(began) > kubetest.Patience {
				t.Fatal("a policy is not in force")
			}
		}
		took = append(took, last.Sub(began))
	}
	slices.Sort(took)
	t.Logf("from a write to the last wrong packet: p50 %v, p99 %v of %d", took[len(took)/2], took[len(took)*99/100], len(took))
}

// away has daemons without their API server: what it told stays in force, also over
// a restart of a daemon, until it is back and has told of what happened meanwhile.
func (k *kubernetes) away(t *testing.T) {
	defer k.restore(t)
	try := func(what, want string) {
		t.Helper()
		for _, wrong := range k.tryAll(t, (&example{want: want}).probes(t), patience) {
			t.Errorf("%s: %s", what, wrong)
		}
	}
	const closed, open = "x/b -> x/a 80/tcp: deny\nx/b -> x/c 80/tcp: allow\nz/a -> x/a 80/udp: deny", "x/b -> x/a 80/tcp: allow\nx/b -> x/c 80/tcp: deny"
	before := k.events()
	k.told(t, before, k.put(t, np("x/p", onA(`policyTypes: [Ingress]`))))
	try("before", closed)
	for _, d := range k.daemons {
		if err := d.wire.Refuse(); err != nil {
			t.Fatal(err)
		}
		d.until(t, "the API server is away", func(c reconcile.Condition) bool { return c.Cluster.Err != nil && c.Cluster.Known && c.InSync })
	}
	try("while it is away", closed)
	d := k.daemons["n1"]
	d.end(t)
	d.run(t)
	d.until(t, "the cluster is waited for", func(c reconcile.Condition) bool { return c.Cluster != nil && !c.Cluster.Known && c.Cluster.Err != nil })
	if c := d.Condition(); c.InSync || c.Ready {
		t.Errorf("without a cluster, the daemon says %q", c)
	}
	try("after a restart while it is away", closed)

	// Nobody can watch from where he was.
	k.clear(t)
	k.put(t, np("x/q", `{podSelector: {matchLabels: {pod: c}}}`))
	if err := k.api.Etcd.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range k.daemons {
		if err := d.wire.Open(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range k.daemons {
		d.until(t, "the API server is back", func(c reconcile.Condition) bool { return c.Cluster.Known && c.Cluster.Err == nil && c.InSync })
	}
	k.told(t, k.events(), 0)
	try("when it is back", open)
}

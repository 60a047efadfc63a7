package kubescale

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/poldernet/polder/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

var (
	size   sizes
	rounds = flag.Int("scale.rounds", 5, "rounds of each daemon with nodes alone")
	events = flag.Int("scale.events", 40, "events of each kind")
	idle   = flag.Duration("scale.idle", 30*time.Second, "how long daemons are idle")
)

func init() {
	flag.IntVar(&size.nodes, "scale.nodes", 5000, "Nodes")
	flag.IntVar(&size.namespaces, "scale.namespaces", 500, "Namespaces")
	flag.IntVar(&size.pods, "scale.pods", 100_000, "Pods")
	flag.IntVar(&size.policies, "scale.policies", 10_000, "NetworkPolicies")
	flag.IntVar(&size.own, "scale.own", 100, "Pods of the node")
}

// results are figures by their names.
type results map[string][]float64

func (r results) add(name string, value float64) { r[name] = append(r[name], value) }

func (r results) seconds(name string, d time.Duration) { r.add(name+"-s", d.Seconds()) }

func (r results) latencies(name string, took []time.Duration) {
	sorted := slices.Sorted(slices.Values(took))
	for suffix, q := range map[string]float64{"p50": 0.5, "p99": 0.99} {
		r.add(name+"-"+suffix+"-ms", float64(sorted[int(q*float64(len(sorted)-1))].Microseconds())/1000)
	}
}

// report reports the median of each.
func (r results) report(b *testing.B) {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		sorted := slices.Sorted(slices.Values(r[name]))
		b.ReportMetric(sorted[len(sorted)/2], name)
		all = append(all, fmt.Sprintf("%s %.4g", name, r[name]))
	}
	b.ReportMetric(0, "ns/op")
	b.Log(strings.Join(all, "; ")) // on one line: of a benchmark's, some are shown
}

// BenchmarkKubernetesScale is one node's daemon in a cluster of 5,000 nodes, beside
// flanneld there, and then with all pods and policies as well.
func BenchmarkKubernetesScale(b *testing.B) {
	lab.Require(b)
	w := newWorld(b, size)
	program, peer := w.build(), w.flannel()
	w.writeNodes()
	b.Run("nodes", func(b *testing.B) {
		r := results{}
		for range *rounds {
			s := w.stand()
			r.start("polder", s, s.polder(program))
			r.nodes("polder", s)
			s.end()
			s = w.stand()
			r.start("flanneld", s, s.flannel(peer))
			r.nodes("flanneld", s)
			s.end()
		}
		r.report(b)
	})
	var once sync.Once
	b.Run("pods", func(b *testing.B) {
		once.Do(func() {
			began := time.Now()
			w.writePods()
			b.Logf("written in %v", time.Since(began))
		})
		r, s := results{}, w.stand()
		r.start("polder", s, s.polder(program))
		defer s.end()
		r.idle("polder", s)
		r.labels("polder", s)
		r.policies("polder", s)
		r.nodes("polder", s)
		now, _ := s.memory()
		r.add("polder-later-rss-MiB", float64(now>>20))
		r.report(b)
	})
}

// start notes what a daemon has taken to begin.
func (r results) start(who string, s *stand, took time.Duration) {
	r.seconds(who+"-start", took)
	r.seconds(who+"-start-cpu", s.cpu())
	now, peak := s.memory()
	r.add(who+"-rss-MiB", float64(now>>20))
	r.add(who+"-peak-MiB", float64(peak>>20))
}

// idle notes what a daemon takes while nothing happens, and while the kubelets of all
// nodes tell every five minutes that they live.
func (r results) idle(who string, s *stand) {
	s.Helper()
	before := s.cpu()
	<-time.After(*idle)
	r.add(who+"-idle-percent", 100*float64(s.cpu()-before)/float64(*idle))
	before = s.cpu()
	beat := time.NewTicker(5 * time.Minute / time.Duration(s.sizes.nodes))
	defer beat.Stop()
	end := time.After(*idle)
	for i := 0; ; i++ {
		select {
		case <-end:
			r.add(who+"-heartbeats-percent", 100*float64(s.cpu()-before)/float64(*idle))
			return
		case <-beat.C:
		}
		s.patch(map[string]any{"status": map[string]any{"conditions": heartbeat()}}, func(ctx context.Context, text []byte) error {
			_, err := s.client.CoreV1().Nodes().PatchStatus(ctx, machine(1+i%(s.sizes.nodes-1)).name(), text)
			return err
		})
	}
}

// patch has a change written.
func (w *world) patch(change any, write func(ctx context.Context, text []byte) error) {
	w.Helper()
	text, err := json.Marshal(change)
	if err == nil {
		err = write(w.Context(), text)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// nodes are nodes that come and go.
func (r results) nodes(who string, s *stand) {
	s.Helper()
	routes := s.routes()
	var took, written []time.Duration
	before := s.cpu()
	for i := range *events {
		m := machine(s.sizes.nodes + i)
		began := time.Now()
		if err := s.addNode(s.Context(), m); err != nil {
			s.Fatal(err)
		}
		written = append(written, time.Since(began))
		took = append(took, s.await(routes, unix.RTM_NEWROUTE, m.subnet()).Sub(began))
		if err := s.client.CoreV1().Nodes().Delete(s.Context(), m.name(), metav1.DeleteOptions{}); err != nil {
			s.Fatal(err)
		}
		s.await(routes, unix.RTM_DELROUTE, m.subnet())
		<-time.After(rest)
	}
	r.latencies(who+"-node", took)
	r.latencies(who+"-node-written", written)
	r.add(who+"-node-cpu-ms", float64((s.cpu()-before).Microseconds())/1000/float64(2**events))
}

// labels are changes of a label of another node's pod, by which it becomes one that is
// let in, or no longer is.
func (r results) labels(who string, s *stand) {
	s.Helper()
	pod := s.pod(s.own)
	tier := map[bool]any{true: "front", false: nil}
	r.changes(who+"-label", s, func(ctx context.Context, i int) error {
		text, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{"tier": tier[i%2 == 0]}}})
		if err != nil {
			return err
		}
		_, err = s.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, text, metav1.PatchOptions{})
		return err
	})
}

// policies are changes of a policy's port.
func (r results) policies(who string, s *stand) {
	s.Helper()
	r.changes(who+"-policy", s, func(ctx context.Context, i int) error {
		np := s.policy(1)
		port := intstr.FromInt32(int32(9000 + i))
		np.Spec.Ingress[0].Ports[0].Port = &port
		_, err := s.client.NetworkingV1().NetworkPolicies(np.Namespace).Update(ctx, np, metav1.UpdateOptions{})
		return err
	})
}

// changes are events that are in force with their only commit or, of several, with the
// one before the last, which removes what is no longer used.
func (r results) changes(what string, s *stand, change func(ctx context.Context, i int) error) {
	s.Helper()
	c := s.commits()
	var took, written []time.Duration
	before := s.cpu()
	for i := range *events {
		began := time.Now()
		if err := change(s.Context(), i); err != nil {
			s.Fatal(err)
		}
		written = append(written, time.Since(began))
		all := s.next(c)
		r.add(what+"-commits", float64(len(all)))
		took = append(took, all[max(0, len(all)-2)].Sub(began))
	}
	r.latencies(what, took)
	r.latencies(what+"-written", written)
	r.add(what+"-cpu-ms", float64((s.cpu()-before).Microseconds())/1000/float64(*events))
}

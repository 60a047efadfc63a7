package cluster

import (
	"fmt"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// TestAnswers: what is told of a pod is never older than what was told before, whether
// it was watched or asked for; an answer is told at once; and who has watched all tells
// what there is at last.
func TestAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, m := newRoster(), told{}
		var history []*corev1.Pod // by version, from 1; without an address: it is deleted
		watched, newest := 0, 0
		told := func() int {
			e := m["x/a"]
			if e == nil {
				return 0
			}
			version, _ := strconv.Atoi(e.Labels["version"])
			return version
		}
		alive := func(p *corev1.Pod) bool { return len(p.Status.PodIPs) > 0 }
		watch := func() {
			if p := history[watched]; alive(p) {
				m.hear(r.set(kept(p)))
			} else {
				m.hear(r.remove(p))
			}
			watched++
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				// Versions grow by a digit.
				version := len(history) + 1
				p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
					Namespace: "x", Name: "a", UID: types.UID(fmt.Sprint(rapid.IntRange(1, 2).Draw(t, "uid"))),
					ResourceVersion: fmt.Sprint(95 + version), Labels: map[string]string{"version": fmt.Sprint(version)},
				}}
				p.Spec.NodeName = "n1"
				if rapid.IntRange(0, 3).Draw(t, "fate") > 0 {
					p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}}
				}
				history = append(history, p)
			case 1:
				if watched < len(history) {
					watch()
				}
			case 2:
				if len(history) == 0 {
					continue
				}
				if p := history[len(history)-1]; alive(p) {
					m.hear(r.answer(kept(p)))
					if told() != len(history) {
						t.Fatalf("the answer is of version %d, and told is %d", len(history), told())
					}
				} else if r.asked["x/a"] != "" {
					m.hear(r.drop("x/a"))
					newest = 0 // what is watched has to come as far
				}
			}
			if now := told(); now != 0 && now < newest {
				t.Fatalf("told is version %d, after %d", now, newest)
			} else if now != 0 {
				newest = now
			}
		}
		for watched < len(history) {
			watch()
		}
		want := 0
		if n := len(history); n > 0 && alive(history[n-1]) {
			want = n
		}
		if told() != want || len(r.asked) > 0 {
			t.Fatalf("at last version %d is told, want %d; asked are %v", told(), want, r.asked)
		}
	})
}

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// server is an API server with one Node, as far as it is written to. It is a
// transport, so that time passes only when all wait.
type server struct {
	mu      sync.Mutex
	node    *corev1.Node
	refuses bool
	writes  int
	events  map[string]int // how often each was written
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code, object := s.answer(r)
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text)), Request: r,
	}, nil
}

func failure(code int, reason metav1.StatusReason, message string) (int, any) {
	return code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	}
}

func (s *server) answer(r *http.Request) (int, any) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
	}
	event := corev1.Event{TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "v1"}}
	switch what := r.Method + " " + r.URL.Path; {
	case what == "PATCH /api/v1/nodes/n1/status":
		s.writes++
		if s.refuses {
			return failure(http.StatusForbidden, metav1.StatusReasonForbidden, "it is forbidden")
		}
		before, err := json.Marshal(s.node)
		if err == nil {
			body, err = strategicpatch.StrategicMergePatch(before, body, corev1.Node{})
		}
		after := &corev1.Node{}
		if err == nil {
			err = json.Unmarshal(body, after)
		}
		if err != nil {
			return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		}
		after.TypeMeta = metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}
		after.ResourceVersion = fmt.Sprint(100 + s.writes)
		s.node = after
		return http.StatusOK, after
	case what == "POST /api/v1/namespaces/default/events" && len(s.events) == 0:
		s.events["it"]++
		return http.StatusCreated, event
	case what == "POST /api/v1/namespaces/default/events":
		return failure(http.StatusConflict, metav1.StatusReasonAlreadyExists, "it is there")
	case strings.HasPrefix(what, "PATCH /api/v1/namespaces/default/events/n1."):
		if err := json.Unmarshal(body, &event); err != nil {
			return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		}
		s.events["it"] = int(event.Count)
		return http.StatusOK, event
	}
	return failure(http.StatusNotFound, metav1.StatusReasonNotFound, r.Method+" "+r.URL.Path)
}

// TestPublish: what is refused is told once and tried again, ever less often; what
// somebody changes is written again at once, and no more often than that; and what
// happens again is counted in its Event.
func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &server{node: someNode(), refuses: true, events: map[string]int{}}
		core, err := client(&rest.Config{Host: "http://api", Transport: api, QPS: -1}, corev1.SchemeGroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		s := New("n1", nil)
		var told []error
		s.tell = func(u reconcile.Update) { told = append(told, u.Saying.Err) }
		s.notices = newNotices(core)
		ctx, stop := context.WithCancel(t.Context())
		var parts sync.WaitGroup
		defer parts.Wait()
		defer stop()
		parts.Go(func() { s.publish(ctx, core) })
		parts.Go(func() { s.notices.run(ctx) })
		hear := func(change func(n *corev1.Node)) {
			api.mu.Lock()
			change(api.node)
			n := trimNode(api.node)
			api.mu.Unlock()
			s.mu.Lock()
			s.publisher.set(n)
			s.mu.Unlock()
			synctest.Wait()
		}
		is := func(what string, so func() bool) {
			t.Helper()
			s.mu.Lock()
			defer s.mu.Unlock()
			api.mu.Lock()
			defer api.mu.Unlock()
			if !so() {
				t.Fatalf("%s: %d writes, told %v, events %v, %+v", what, api.writes, told, api.events, api.node)
			}
		}

		hear(func(*corev1.Node) {})
		is("without a state", func() bool { return api.writes == 0 })
		network := &spec.Network{Backend: spec.Backend{Type: spec.VXLAN}}
		bad := reconcile.NodeState{Network: network, Self: []spec.LeftOut{{Node: "n1", Reason: spec.NoPodCIDR, Text: "it has no pod CIDR yet"}}}
		s.Publish(bad)
		<-time.After(10 * time.Minute)
		synctest.Wait()
		is("refused", func() bool {
			return api.writes > 8 && api.writes < 20 && len(told) == 1 && told[0] != nil && len(api.events) == 0
		})

		api.mu.Lock()
		api.refuses = false
		api.mu.Unlock()
		<-time.After(2 * retryMost)
		synctest.Wait()
		is("taken", func() bool {
			return len(told) == 2 && told[1] == nil && api.events["it"] == 1 &&
				slices.ContainsFunc(api.node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == podCIDRs && c.Status == corev1.ConditionFalse })
		})

		good := reconcile.NodeState{
			Network: network, Stands: true, Families: []spec.Family{spec.IPv4},
			MACs: spec.PerFamily[spec.MAC]{IPv4: mac("12:c6:65:89:b4:e3")},
		}
		s.Publish(good)
		<-time.After(time.Minute)
		synctest.Wait()
		began, writes := time.Now(), 0
		is("as it is", func() bool {
			writes = api.writes
			return api.node.Annotations[polderMAC.IPv4] == "12:c6:65:89:b4:e3"
		})
		hear(func(n *corev1.Node) { delete(n.Annotations, polderMAC.IPv4) })
		is("deleted", func() bool {
			return api.node.Annotations[polderMAC.IPv4] == "12:c6:65:89:b4:e3" && api.writes == writes+1 && time.Since(began) == 0
		})
		<-time.After(time.Hour)
		synctest.Wait()
		is("an hour later", func() bool { return api.writes == writes+1 })
		for range 1000 {
			hear(func(n *corev1.Node) { n.Annotations[polderMAC.IPv4] = "x" })
			<-time.After(10 * time.Millisecond)
		}
		is("a fight of ten seconds", func() bool { return api.writes > writes+10 && api.writes < writes+20 })

		s.Publish(bad)
		<-time.After(time.Minute)
		synctest.Wait()
		is("again", func() bool { return api.events["it"] == 2 })
	})
}

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// notices are Events about objects. They are written on the way: nothing waits for
// them.
type notices struct {
	core    *rest.RESTClient
	waiting chan *notice
	counts  map[string]int32 // how often one was written, by its name
}

// notice is an Event that is to be written.
type notice struct {
	*corev1.Event
	// again says that one which is there already is counted. Of what all nodes find,
	// that is not done.
	again bool
}

// mostNotices is how many wait to be written. More are left out.
const mostNotices = 100

func newNotices(core *rest.RESTClient) *notices {
	return &notices{core, make(chan *notice, mostNotices), map[string]int32{}}
}

// put has an Event written; nil is none.
func (n *notices) put(e *notice) {
	if e == nil {
		return
	}
	select {
	case n.waiting <- e:
	default:
	}
}

// event is an Event about an object. Its name is of what is said, so that it is said
// once.
func event(about corev1.ObjectReference, namespace, reason, message string, now metav1.Time) *corev1.Event {
	const mostName, mostMessage = 200, 1024 // of 253 and 1024
	message = strings.ToValidUTF8(message[:min(len(message), mostMessage)], "")
	sum := sha256.Sum256([]byte(string(about.UID) + "\n" + message))
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      fmt.Sprintf("%s.%x", strings.TrimRight(about.Name[:min(len(about.Name), mostName)], "-."), sum[:8]),
		},
		InvolvedObject: about,
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message,
		Source: corev1.EventSource{Component: "polder"}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: "polder",
	}
}

// policyEvent tells what is wrong with a policy; nil: nothing is. Every node finds
// the same.
func policyEvent(np *keptPolicy, now metav1.Time) *notice {
	if len(np.problems) == 0 {
		return nil
	}
	var texts []string
	for _, p := range np.problems {
		texts = append(texts, p.String())
	}
	return &notice{Event: event(np.reference(), np.Namespace, "NotUnderstood", "What is not understood of this policy lets nothing through: "+strings.Join(texts, "; "), now)}
}

// refusalEvent tells why a node's kernel does not take a policy. Of others it may take
// it, or tell something else: each has an Event of its own.
func refusalEvent(np *keptPolicy, node, why string, now metav1.Time) *notice {
	return &notice{again: true, Event: event(np.reference(), np.Namespace, "NotProgrammed", "On node "+node+" "+why, now)}
}

// nodeEvent tells something of the own node, which no other node does.
func nodeEvent(n *corev1.Node, reason, message string, now metav1.Time) *notice {
	return &notice{again: true, Event: event(corev1.ObjectReference{
		APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID,
	}, metav1.NamespaceDefault, reason, message, now)}
}

// How often a notice is tried, and how long is waited in between.
const (
	noticeTries = 5
	noticeEvery = 10 * time.Second
)

func (n *notices) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-n.waiting:
			n.write(ctx, e)
		}
	}
}

func (n *notices) write(ctx context.Context, e *notice) {
	for range noticeTries {
		err := n.core.Post().Namespace(e.Namespace).Resource("events").Body(e.Event).Do(ctx).Error()
		if apierrors.IsAlreadyExists(err) && e.again {
			err = n.count(ctx, e)
		}
		if err == nil {
			n.counts[e.Name]++
		}
		if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
			return // it is there, or never will be
		}
		wait(ctx, nil, noticeEvery)
	}
}

// count says of an Event that is there that it has happened again. How often it had
// before this process is not known.
func (n *notices) count(ctx context.Context, e *notice) error {
	text, err := json.Marshal(map[string]any{"count": max(n.counts[e.Name], 1) + 1, "lastTimestamp": e.LastTimestamp})
	if err != nil {
		return err
	}
	return n.core.Patch(types.MergePatchType).Namespace(e.Namespace).Resource("events").Name(e.Name).Body(text).Do(ctx).Error()
}

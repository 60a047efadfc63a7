package cluster

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/poldernet/polder/policy/kube"
)

// notices are Events about NetworkPolicies that are not understood. They are
// written on the way: policies do not wait for them.
type notices struct {
	core    *rest.RESTClient
	waiting chan *corev1.Event
}

// mostNotices is how many wait to be written. More are left out.
const mostNotices = 100

func newNotices(core *rest.RESTClient) *notices {
	return &notices{core, make(chan *corev1.Event, mostNotices)}
}

func (n *notices) put(np *networkingv1.NetworkPolicy, problems []kube.Problem) {
	if len(problems) == 0 {
		return
	}
	select {
	case n.waiting <- eventOf(np, problems, metav1.Now()):
	default:
	}
}

// eventOf tells what is wrong with a policy. Every node finds the same: the name
// is of what is said, so that it is said once.
func eventOf(np *networkingv1.NetworkPolicy, problems []kube.Problem, now metav1.Time) *corev1.Event {
	const mostName, mostMessage = 200, 1024 // of 253 and 1024
	var texts []string
	for _, p := range problems {
		texts = append(texts, p.String())
	}
	message := "What is not understood of this policy lets nothing through: " + strings.Join(texts, "; ")
	message = strings.ToValidUTF8(message[:min(len(message), mostMessage)], "")
	sum := sha256.Sum256([]byte(string(np.UID) + "\n" + message))
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: np.Namespace,
			Name:      fmt.Sprintf("%s.%x", strings.TrimRight(np.Name[:min(len(np.Name), mostName)], "-."), sum[:8]),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy",
			Namespace: np.Namespace, Name: np.Name, UID: np.UID, ResourceVersion: np.ResourceVersion,
		},
		Type: corev1.EventTypeWarning, Reason: "NotUnderstood", Message: message,
		Source: corev1.EventSource{Component: "polder"}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: "polder",
	}
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

func (n *notices) write(ctx context.Context, e *corev1.Event) {
	for range noticeTries {
		err := n.core.Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error()
		if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
			return // it is there, or never will be
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(noticeEvery):
		}
	}
}

package kube

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/poldernet/polder/internal/kubetest"
	"github.com/poldernet/polder/internal/lab/station"
	"github.com/poldernet/polder/spec"
)

// act does one thing.
func (c *churn) act() {
	acts := []struct {
		weight int
		do     func() bool // false: there is nothing to do it with
	}{
		{12, func() bool {
			node := c.room()
			return node != "" && c.create(node)
		}},
		{6, func() bool { return c.onPod(c.remove) }},
		{6, c.replace},
		{4, func() bool { return c.onPod(c.finish) }},
		{8, c.outlive},
		{4, func() bool { return c.onPod(c.terminate) }},
		{14, func() bool { return c.onPod(c.relabel) }},
		{10, c.relabelNamespace},
		{14, c.putPolicy},
		{12, c.changePolicy},
		{5, c.removePolicy},
		{8, c.pend},
		{8, c.foreignClaims},
		{5, c.haunt},
		{3, c.collect},
	}
	for {
		n := c.IntN(119)
		for _, a := range acts {
			if n -= a.weight; n < 0 {
				if a.do() {
					return
				}
				break
			}
		}
	}
}

// live are the pods that have a network and may be changed now, in the order of
// their names.
func (c *churn) live() (list []*pod) {
	for _, key := range slices.Sorted(maps.Keys(c.pods)) {
		if p := c.pods[key]; p.machine != nil {
			list = append(list, p)
		}
	}
	return list
}

func (c *churn) onPod(do func(*pod)) bool {
	list := c.live()
	if len(list) < 3 {
		return false
	}
	do(of(c.dice, list...))
	return true
}

// room is a node that can get another pod, or none.
func (c *churn) room() string {
	const most = 5
	count := map[string]int{}
	for _, p := range c.live() {
		count[p.node]++
	}
	node := of(c.dice, "n1", "n2", "n3")
	if !c.works(node) || count[node] >= most || node == foreignNode && count[node] >= foreignPods {
		return ""
	}
	return node
}

// works says that a node can attach pods now.
func (c *churn) works(node string) bool {
	return node != c.dead && node != c.cut && c.absent[node] == nil
}

// pend makes a pod that is not attached yet. Others may be made, get the addresses
// that will be its own, and lose them, before it is.
func (c *churn) pend() bool {
	const most = 3
	waiting := 0
	for _, p := range c.pods {
		if p.pending() {
			waiting++
		}
	}
	if waiting == most {
		return false
	}
	p := c.object(of(c.dice, "n1", "n2", "n3"))
	c.note("pend", "%s on %s with %v", p.key(), p.node, p.labels)
	return true
}

func (p *pod) pending() bool { return len(p.addresses) == 0 }

// object makes a pod's object. Of those whose network is gone few stay, so that there
// are names left.
func (c *churn) object(node string) *pod {
	const most = 10
	var gone []*pod
	for _, key := range slices.Sorted(maps.Keys(c.pods)) {
		if p := c.pods[key]; p.machine == nil && !p.pending() {
			gone = append(gone, p)
		}
	}
	if len(gone) > most {
		old := of(c.dice, gone...)
		c.note("forget", "%s", old.key())
		c.forget(old)
	}
	p := &pod{namespace: of(c.dice, namespaceNames...), node: node, labels: c.podLabels(), web: of[uint16](c.dice, 80, 81)}
	for p.name == "" || c.pods[p.key()] != nil { // also names that others had
		p.name = fmt.Sprintf("p%d", c.IntN(30))
	}
	made := c.api.Pod(c, kubetest.Pod{
		Namespace: p.namespace, Name: p.name, Node: node, Labels: p.labels, Ports: p.ports(), Phase: corev1.PodPending,
	})
	p.uid, p.made = string(made.UID), made.CreationTimestamp
	c.pods[p.key()] = p
	return p
}

// create makes a pod on a node, or takes one that waits there, attaches it, and
// gives it a status.
func (c *churn) create(node string) bool {
	var p *pod
	for _, key := range slices.Sorted(maps.Keys(c.pods)) {
		if old := c.pods[key]; old.node == node && old.pending() && c.chance(20) {
			p = old
		}
	}
	if p == nil {
		p = c.object(node)
	}
	c.attach(p)
	return true
}

func (c *churn) attach(p *pod) {
	node := p.node
	if node == foreignNode {
		p.machine, p.addresses = c.machines[node], c.foreignAddresses()
	} else {
		ns := c.sandbox(p.name)
		p.addresses = c.engines[node].attach(kubetest.Attachment{
			Namespace: p.namespace, Name: p.name, UID: p.uid, Sandbox: ns, Ports: []kubetest.PortMapping{},
		})
		c.must(forget(c.machines[node], p.addresses))
		for _, other := range c.live() {
			if other.node == node {
				c.must(forget(other.machine, p.addresses))
			}
		}
		var err error
		p.machine, err = station.Open(ns, spec.ProtocolTCP)
		c.must(err)
		for _, port := range []uint16{80, 81, 8080} {
			c.must(p.machine.Listen(port))
		}
	}
	c.note("create", "%s on %s with %v %v", p.key(), node, p.addresses, p.labels)
	c.setStatus(p.namespace, p.name, corev1.PodRunning, p.addresses)
	for _, key := range slices.Sorted(maps.Keys(c.pods)) {
		// By its status, a younger one has the addresses: all but the pod's own node,
		// which has attached it, would believe that.
		if o := c.pods[key]; o.machine == nil && !o.finished && o.over(p) && slices.Equal(o.addresses, p.addresses) {
			c.note("forget", "%s", key)
			c.forget(o)
		}
	}
}

// foreignAddresses are some that no pod of the foreign node has, of the subnet that
// its object tells of, if any.
func (c *churn) foreignAddresses() []netip.Addr {
	subnet := 3
	if n := c.nodes[foreignNode]; n != nil && n.subnets.IPv4.String() == subnetsOf(otherSubnet)[0] {
		subnet = otherSubnet
	}
	return of(c.dice, c.vacant(subnet)...)
}

// vacant are the addresses in a subnet of the foreign node that no pod has.
func (c *churn) vacant(subnet int) (list [][]netip.Addr) {
	for i := 1; i <= foreignPods; i++ {
		both := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.244.%d.%d", subnet, i)), netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::%d", subnet, i))}
		if !slices.ContainsFunc(c.live(), func(p *pod) bool { return p.addresses[0] == both[0] }) {
			list = append(list, both)
		}
	}
	return list
}

// detach takes a pod's network away, as its runtime does. Others may have its
// addresses from now on.
func (c *churn) detach(p *pod) {
	if p.node != foreignNode {
		c.must(c.engines[p.node].Del(context.Background(), p.attachment()))
		p.machine.Close()
		c.must(p.Namespace.Close())
	}
	p.machine = nil
}

func (p *pod) attachment() kubetest.Attachment {
	return kubetest.Attachment{Namespace: p.namespace, Name: p.name, UID: p.uid, Sandbox: p.Namespace, Ports: []kubetest.PortMapping{}}
}

// remove deletes a pod, the object before the network or after it.
func (c *churn) remove(p *pod) {
	c.note("delete", "%s", p.key())
	if c.chance(30) {
		c.forget(p)
		c.detach(p)
		return
	}
	c.detach(p)
	c.forget(p)
}

func (c *churn) forget(p *pod) {
	c.api.DeletePod(c, p.namespace, p.name)
	delete(c.pods, p.key())
}

// replace deletes a pod and makes another one, which gets its addresses, before
// anybody has heard of it. Or the object of the first one stays, as when its kubelet
// does not get through.
func (c *churn) replace() bool {
	list := slices.DeleteFunc(c.live(), func(p *pod) bool { return !c.works(p.node) })
	if len(list) == 0 {
		return false
	}
	p := of(c.dice, list...)
	c.note("replace", "%s", p.key())
	c.detach(p)
	if c.chance(50) {
		c.forget(p)
		return c.create(p.node)
	}
	heir := c.object(p.node)
	c.attach(heir) // both have the addresses by their status
	if there := c.pods[p.key()] == p; there && c.chance(50) {
		c.forget(p)
	}
	return true
}

// finish has a pod succeed. Its status keeps the addresses that it has no more.
func (c *churn) finish(p *pod) {
	c.note("finish", "%s", p.key())
	if c.chance(50) {
		c.detach(p)
		c.setStatus(p.namespace, p.name, corev1.PodSucceeded, p.addresses)
	} else {
		c.setStatus(p.namespace, p.name, corev1.PodSucceeded, p.addresses)
		c.detach(p)
	}
	p.finished = true
}

// outlive has a pod finish that was made when an older one waited already. That one
// gets its addresses.
func (c *churn) outlive() bool {
	for _, key := range slices.Sorted(maps.Keys(c.pods)) {
		old := c.pods[key]
		if !old.pending() || !c.works(old.node) {
			continue
		}
		younger := slices.DeleteFunc(c.live(), func(p *pod) bool { return p.node != old.node || !old.made.Before(&p.made) })
		if len(younger) == 0 {
			if node := c.room(); node != old.node {
				return false
			}
			younger = []*pod{c.object(old.node)}
			c.attach(younger[0])
		}
		p := of(c.dice, younger...)
		c.note("outlive", "%s, by %s", p.key(), old.key())
		c.finish(p)
		c.attach(old)
		return true
	}
	return false
}

// terminate begins to delete a pod, or ends what was begun, of those that have
// finished, too.
func (c *churn) terminate(p *pod) {
	for _, key := range slices.Sorted(maps.Keys(c.pods)) {
		if old := c.pods[key]; old.machine == nil && !old.pending() && c.chance(25) {
			c.note("forget", "%s", key)
			c.forget(old)
			return
		}
	}
	c.note("terminate", "%s", p.key())
	var grace int64 = 30
	c.must(c.api.Client.CoreV1().Pods(p.namespace).Delete(context.Background(), p.name, metav1.DeleteOptions{GracePeriodSeconds: &grace}))
	c.detach(p)
	p.dying = true
}

func (c *churn) relabel(p *pod) {
	p.labels = c.podLabels()
	c.note("label", "%s as %v", p.key(), p.labels)
	c.setPodLabels(p.namespace, p.name, p.labels)
}

func (c *churn) relabelNamespace() bool {
	name, labels := of(c.dice, namespaceNames...), c.namespaceLabels()
	c.note("label", "namespace %s as %v", name, labels)
	c.setNamespaceLabels(name, labels)
	c.namespaces[name] = labels
	return true
}

// putPolicy makes a policy.
func (c *churn) putPolicy() bool {
	const most = 8
	if len(c.policies) >= most {
		return false
	}
	np := &networkingv1.NetworkPolicy{}
	for np.Name == "" || c.policies[np.Namespace+"/"+np.Name] != nil {
		np.Namespace, np.Name = of(c.dice, namespaceNames...), fmt.Sprintf("np%d", c.IntN(20))
	}
	c.put("policy", np)
	return true
}

// changePolicy has a policy say something else.
func (c *churn) changePolicy() bool {
	old := c.anyPolicy()
	if old == nil {
		return false
	}
	c.put("change", &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: old.Namespace, Name: old.Name}})
	return true
}

func (c *churn) put(kind string, np *networkingv1.NetworkPolicy) {
	np.Spec = c.policy()
	text, err := np.Spec.Marshal()
	c.must(err)
	c.note(kind, "%s/%s: %v (%d bytes)", np.Namespace, np.Name, np.Spec.PodSelector, len(text))
	c.setPolicy(np)
	c.policies[np.Namespace+"/"+np.Name] = np
}

func (c *churn) removePolicy() bool {
	np := c.anyPolicy()
	if np == nil {
		return false
	}
	c.note("unpolicy", "%s/%s", np.Namespace, np.Name)
	c.deletePolicy(np.Namespace, np.Name)
	delete(c.policies, np.Namespace+"/"+np.Name)
	return true
}

func (c *churn) anyPolicy() *networkingv1.NetworkPolicy {
	keys := slices.Sorted(maps.Keys(c.policies))
	if len(keys) == 0 {
		return nil
	}
	return c.policies[of(c.dice, keys...)]
}

// collect has the plugins forget all pods that are not there.
func (c *churn) collect() bool {
	node := of(c.dice, nodeNames...)
	if node == c.dead {
		return false
	}
	c.note("gc", "on %s", node)
	var valid []kubetest.Attachment
	for _, p := range c.live() {
		if p.node == node {
			valid = append(valid, p.attachment())
		}
	}
	c.must(c.engines[node].GC(context.Background(), valid...))
	return true
}

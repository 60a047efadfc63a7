package rows

import (
	"slices"
	"testing"
)

// row is a rule of what policies mean. Its name is what cases refer to.
type row struct{ name, says string }

// required are the rules that must have a case. Those of Kubernetes have numbers,
// of which some are left out because they are no matter of a table: what changes
// while it runs, and what Kubernetes leaves to the implementation.
var required = []row{
	{"networkpolicy 1", "no rule of a direction denies all, an empty one allows all"},
	{"networkpolicy 2", "without peers it is any source, also external; an empty peer is refused"},
	{"networkpolicy 3", "a rule with ports only is about all peers"},
	{"networkpolicy 4", "a port without protocol is TCP's; a protocol without port is all of its ports"},
	{"networkpolicy 5", "policyTypes default to Ingress, and Egress where there are egress rules; rules of a direction that is no type are ignored"},
	{"networkpolicy 6", "isolation is per direction"},
	{"networkpolicy 7", "what answers an allowed connection passes"},
	{"networkpolicy 8", "both ends must allow; policies, rules and peers of one direction add up"},
	{"networkpolicy 9", "NotIn and DoesNotExist match what lacks the key, In and Exists do not"},
	{"networkpolicy 10", "an empty value wants the key to be there"},
	{"networkpolicy 11", "podSelector alone is about the policy's namespace, both selectors are and, two peers are or"},
	{"networkpolicy 12", "all namespaces are all pods and nobody else"},
	{"networkpolicy 14", "ipBlock matches pods, too"},
	{"networkpolicy 15", "except shrinks its own ipBlock only"},
	{"networkpolicy 16", "excepts and ports may overlap and be there twice"},
	{"networkpolicy 17", "stored CIDRs may have host bits and leading zeros, new ones may not"},
	{"networkpolicy 18", "endPort is in the range, may be equal to port, and needs a number as port"},
	{"networkpolicy 19", "a named port is resolved for each pod that is reached"},
	{"networkpolicy 20", "a named port of egress without peers is resolved in all namespaces"},
	{"networkpolicy 21", "a name that nothing has matches nothing and isolates; its protocol must match"},
	{"networkpolicy 22", "a named port with an ipBlock is that of the pod that the block covers; a name has one number in a pod"},
	{"networkpolicy 24", "a pod's own node reaches it, another node does not"},
	{"networkpolicy 26", "a pod reaches its own address"},
	{"networkpolicy 28", "what goes to a service is judged by the pod and port that it comes to"},
	{"networkpolicy 34", "neighbour discovery and errors of connections pass; who claims no router's part may not play it"},
	{"networkpolicy 35", "each address of a pod is subject and peer, and no family is the other"},
	{"networkpolicy 36", "the longest names are names"},

	{"calico 1.1 global", "a policy without a namespace selects in all"},
	{"calico 1.1 namespaced", "a policy of a namespace selects in it only, and so do its peers' selectors"},
	{"calico 1.1 namespaceSelector", "a global policy selects in the namespaces that are chosen by label"},
	{"calico 1.1 network set", "a network set is a peer by its name or by its labels"},
	{"calico 1.1 host endpoint", "policies select a node's interface, and not by the selector of workloads"},
	{"calico 1.1 every interface", "* is every interface that has no host endpoint of its own and leads to no pods"},
	{"calico 1.1 one host endpoint", "an interface has one host endpoint"},
	{"calico 1.1 failsafe", "no policy closes failsafe ports"},
	{"calico 1.1 tier", "tiers by order, then by name"},
	{"calico 1.1 tier that is none", "a policy's tier must be there"},
	{"calico 1.1 order", "policies by order, those without one last, then by name"},
	{"calico 1.2 skipped", "a tier without a policy for the endpoint and direction is skipped"},
	{"calico 1.2 first match", "the first rule that matches decides"},
	{"calico 1.2 pass", "pass goes to the next tier"},
	{"calico 1.2 default deny", "a tier's default action denies what no rule decided"},
	{"calico 1.2 default pass", "or passes it on"},
	{"calico 1.2 last tier", "what the last tier passes on is left to profiles, which here allow"},
	{"calico 1.2 log", "log decides nothing, and isolates"},
	{"calico 1.2 forwarded", "host endpoints are not about what is forwarded"},
	{"calico 1.2 types", "types are those that there are rules of, and ingress without any"},
	{"calico 1.2 own host", "what a host sends to its own pods is not judged, what they send to it is by their egress"},
	{"calico 1.3 protocol", "a protocol by name or number"},
	{"calico 1.3 icmp", "ICMP by type, or by type and code"},
	{"calico 1.3 nets", "nets and notNets"},
	{"calico 1.3 mixed families", "a rule with nets of both families is one for each"},
	{"calico 1.3 zero net", "a net of all addresses, and one of half of them"},
	{"calico 1.3 ports", "ports by number, range, name, and all of a protocol"},
	{"calico 1.3 named port of a peer", "a name is that of the peers that the selector matches"},
	{"calico 1.3 and", "all matches of a rule must hold"},
	{"calico 1.3 or", "one element of a list is enough"},
	{"calico 1.3 namespaceSelector", "with a selector both must match, alone it is all of the namespaces"},
	{"calico 1.3 negated selector", "a negated selector matches known endpoints only; strangers are denied before"},
	{"calico 1.4 ==", "a label with a value"},
	{"calico 1.4 !=", "another value, or no label"},
	{"calico 1.4 in", "one of several values"},
	{"calico 1.4 not in", "none of several values, or no label"},
	{"calico 1.4 has", "a label, also an empty one"},
	{"calico 1.4 contains", "a part of the value"},
	{"calico 1.4 starts with", "its beginning"},
	{"calico 1.4 ends with", "its end"},
	{"calico 1.4 all", "all, and an empty selector"},
	{"calico 1.4 operators", "! before &&, && before ||, and parentheses"},
	{"calico 1.5 order", "a NetworkPolicy has order 1000 in the default tier"},
	{"calico 1.5 merged ports", "ports of several protocols in one rule are each of its own"},
	{"calico 1.5 fails closed", "a stored rule that is not understood matches nothing"},
}

// cases is the table.
var cases = slices.Concat(kubernetesPolicies, kubernetesPeers, kubernetesPorts, kubernetesPackets, calicoModel, calicoRules, calicoSelectors)

// TestEveryRowHasACase holds the table to the list.
func TestEveryRowHasACase(t *testing.T) {
	known, found, names := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range required {
		if known[r.name] {
			t.Errorf("%s stands twice in the list", r.name)
		}
		known[r.name] = true
	}
	for _, c := range cases {
		if names[c.String()] {
			t.Errorf("two cases are called %s", c)
		}
		names[c.String()] = true
		if !known[c.row] {
			t.Errorf("%s: there is no such row", c)
		}
		found[c.row] = true
		if (len(c.probes(t)) > 0) == (len(c.refused) > 0) {
			t.Errorf("%s has either probes or words of a refusal", c)
		}
	}
	for _, r := range required {
		if !found[r.name] {
			t.Errorf("%s has no case: %s", r.name, r.says)
		}
	}
}

package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/reconcile"
)

// drift is what happens to a node, in one or several ways, and is undone by the
// daemon.
type drift struct {
	what     string
	commands []string
}

// move is a change of the host that the daemon follows: a command that succeeds
// once it has. It goes both ways.
type move struct {
	what, command, followed string
	back, undo              string
}

// moves of the underlay, each in a cluster where the daemon can follow.
var moves = []struct {
	cluster
	move
}{
	{damagedCluster, move{
		"underlay down: peers on its link are reached by VXLAN", "ip link set eth0 down",
		"[ $(ip route show proto 87 | grep -c 'dev polder') = 2 ] && [ $(ip -6 route show proto 87 | grep -c 'dev polder') = 2 ]",
		"underlay up: and directly again", underlayUp,
	}},
	{damagedCluster, move{
		"underlay MTU 1500 to 1400", "ip link set eth0 mtu 1400",
		"grep -q 1330 /sys/class/net/cni0/mtu && grep -q 1350 /sys/class/net/polder.1/mtu && grep -q 1330 /sys/class/net/polder-v6.1/mtu",
		"underlay MTU 1400 to 1500", "ip link set eth0 mtu 1500",
	}},
	{
		cluster{backend: backendDirect, pods: dual, nodes: map[string]string{"n1": `underlay { interface = "eth0" }`}},
		move{
			"node address changed", "ip addr del 192.0.2.11/24 dev eth0; ip addr add 192.0.2.111/24 brd + dev eth0; ip route replace default via 192.0.2.1",
			"ip -d link show polder.1 | grep -q 'local 192.0.2.111 '",
			"node address changed back", "ip addr del 192.0.2.111/24 dev eth0; ip addr add 192.0.2.11/24 brd + dev eth0; ip route replace default via 192.0.2.1",
		},
	},
}

// repair is how one drift was repaired, each time.
type repair struct {
	what string
	took []time.Duration // from the kernel's first word of the break to its last
	did  map[string]bool // "update link"
	// polled says that the kernel told nobody, and polder looked by itself.
	polled bool
}

// watched is a daemon on a node, and the kernel's word of it.
type watched struct {
	*daemon
	*notices
	whole string
}

// watched runs a daemon on n1.
func (c cluster) watched(t *testing.T) watched {
	t.Helper()
	n, whole := c.wholeNode(t)
	text, _ := c.text()
	d := n.run("n1", text)
	d.await(0, "being ready", func(e reconcile.Event) bool { return e.Type == reconcile.EventReady })
	return watched{d, n.listen("n1"), whole}
}

// after breaks the node by a command, waits for the daemon to have done
// something about it and for is, and adds the time to what is known.
func (w watched) after(r *repair, command string, is func()) {
	w.n.t.Helper()
	seq := w.Journal().Last()
	w.begin(command)
	w.n.sh("n1", command)
	w.await(seq, "a repair", func(e reconcile.Event) bool { return e.Type == reconcile.EventChanged })
	// To look at once would be to compete with the repair.
	w.quiet(20 * time.Millisecond)
	is()
	first, last, words := w.span()
	if len(words) < 2 {
		w.n.t.Errorf("after %s the kernel said %q", command, words)
	}
	if r.did == nil {
		r.did = map[string]bool{}
	}
	for seq < w.Journal().Last() {
		e := w.await(seq, "anything", func(reconcile.Event) bool { return true })
		if seq = e.Seq; e.Type == reconcile.EventChanged {
			r.did[string(e.Change.Action)+" "+e.Change.Kind] = true
			r.polled = r.polled || e.Cause == reconcile.CauseSysctl
		}
	}
	r.took = append(r.took, last.Sub(first))
	w.n.t.Logf("%s: %v, %v; %v", command, last.Sub(first), slices.Sorted(maps.Keys(r.did)), words)
}

// isWhole waits until the node is what it was before anything happened.
func (w watched) isWhole(after string) func() {
	return func() {
		w.n.t.Helper()
		w.settle(after)
		if now := w.n.settled("n1"); now != w.whole {
			w.n.t.Errorf("after %s the node is\n%s", after, difference(w.whole, now))
		}
	}
}

// repaired drifts, each so many times.
func (w watched) repaired(x drift, times int) repair {
	r := repair{what: x.what}
	for range times {
		for _, command := range x.commands {
			w.after(&r, command, w.isWhole(x.what))
		}
	}
	return r
}

// followed is a move, there and back, so many times.
func (w watched) followed(m move, times int) (there, back repair) {
	there, back = repair{what: m.what}, repair{what: m.back}
	for range times {
		w.after(&there, m.command, func() {
			w.n.until("n1", m.followed)
			w.settle(m.what)
		})
		w.after(&back, m.undo, w.isWhole(m.back))
	}
	return there, back
}

// drifts are all damages, and those of everything in the rules.
func (n *network) drifts() (all []drift) {
	for _, d := range damages {
		all = append(all, drift{d.name, []string{d.command}})
	}
	return append(all, rulesetDrifts(n.sh("n1", "nft list table inet polder"))...)
}

// The rule of a chain that stands at a position, and its handle.
const (
	ruleHandle  = `handle $(nft -a list chain inet polder %[1]s | sed -n '/^\t\t.*# handle/p' | sed -n '%[2]ds/.*# handle //p')`
	deleteRule  = "nft delete rule inet polder %[1]s " + ruleHandle
	replaceRule = "nft replace rule inet polder %[1]s " + ruleHandle + ` "$(cat <<'END'` + "\n%[3]s\nEND\n)\""
)

// elementsOf is a set with its elements, as nft lists it.
var elementsOf = regexp.MustCompile(`(?s)set (\S+) \{[^}]*?elements = \{ ([^}]*?) \}`)

// rulesetDrifts break every chain, rule, operand and element of a table that is
// listed as text.
func rulesetDrifts(text string) []drift {
	flushed, deleted := drift{what: "each chain flushed"}, drift{what: "each base chain deleted"}
	rules, operands := drift{what: "each rule deleted"}, drift{what: "each operand of each rule altered"}
	gone, added := drift{what: "each element of each set deleted"}, drift{what: "an element added to each set"}
	chain, position := "", 0
	for line := range strings.Lines(text) {
		switch words := strings.Fields(line); {
		case len(words) == 3 && words[0] == "chain":
			chain, position = words[1], 0
			flushed.commands = append(flushed.commands, "nft flush chain inet polder "+chain)
		case chain == "" || len(words) < 2:
		case words[0] == "type":
			deleted.commands = append(deleted.commands, fmt.Sprintf("nft 'flush chain inet polder %s; delete chain inet polder %[1]s'", chain))
		default:
			position++
			rules.commands = append(rules.commands, fmt.Sprintf(deleteRule, chain, position))
			for _, altered := range alterations(strings.TrimSpace(line)) {
				operands.commands = append(operands.commands, fmt.Sprintf(replaceRule, chain, position, altered))
			}
		}
	}
	for _, set := range elementsOf.FindAllStringSubmatch(text, -1) {
		another := ""
		for _, e := range strings.Split(set[2], ",") {
			e = strings.TrimSpace(e)
			gone.commands = append(gone.commands, fmt.Sprintf("nft delete element inet polder %s '{ %s }'", set[1], e))
			another = anotherOperand[strings.Trim(e, `"`)]
		}
		added.commands = append(added.commands, fmt.Sprintf("nft add element inet polder %s '{ %s }'", set[1], another))
	}
	return []drift{flushed, deleted, rules, operands, gone, added}
}

// anotherOperand is what may stand in a word's place.
var anotherOperand = map[string]string{
	"8472": "8473", "udp": "tcp", "dport": "sport", "saddr": "daddr", "daddr": "saddr", "!=": "==",
	"drop": "accept", "accept": "drop", "return": "accept", "notrack": "accept", "jump": "goto",
	"vxlan_door": "vxlan_from_pod", "vxlan_from_pod": "vxlan_door", "fully-random": "random", "missing": "exists", "local": "broadcast",
	"@vxlan_peers4": "192.0.2.12", "@vxlan_peers6": "2001:db8:2::12",
	"@peer_subnets4": "10.244.2.0/24", "@peer_subnets6": "fd00:10:244:2::/64", "@pod_links": `"cni0"`,
	"eth0": `"eth9"`, "veth1": `"veth8"`, "veth2": `"veth9"`, "polder.1": `"polder.9"`, "polder-v6.1": `"polder-v6.9"`,
	"10.244.0.0/16": "10.244.0.0/17", "fd00:10:244::/48": "fd00:10:244::/49",
	"10.244.1.0/24": "10.244.1.0/25", "fd00:10:244:1::/64": "fd00:10:244:1::/65",
	"10.244.3.0/24": "10.244.9.0/24", "fd00:10:244:3::/64": "fd00:10:244:9::/64",
	"224.0.0.0/4": "224.0.0.0/5", "ff00::/8": "ff00::/9", "0x00004000": "0x00008000",
	"192.0.2.11": "192.0.2.10", "2001:db8:2::11": "2001:db8:2::10",
	"192.0.3.13": "192.0.3.99", "2001:db8:3::13": "2001:db8:3::99",
}

// alterations of a rule are all rules in which one word is another.
func alterations(rule string) (all []string) {
	rule, comment, _ := strings.Cut(rule, " comment ")
	words := strings.Fields(rule)
	for i, word := range words {
		another, can := anotherOperand[strings.Trim(word, `"`)]
		if !can {
			continue
		}
		altered := slices.Clone(words)
		altered[i] = another
		all = append(all, strings.Join(altered, " ")+" comment "+comment)
	}
	return append(all, rule+` comment "another"`)
}

// foreignRoute is in the way of the node's own subnet, and not polder's.
const foreignRoute = "ip route %s 10.244.1.0/24 via 192.0.2.77 proto static"

// conflict has somebody put a route in the way, which is not undone but told
// of, and says when it was, counted from the kernel's word of it.
func (w watched) conflict() time.Duration {
	w.n.t.Helper()
	seq := w.Journal().Last()
	w.begin("")
	w.n.sh("n1", fmt.Sprintf(foreignRoute, "prepend"))
	told := w.await(seq, "a conflict", func(e reconcile.Event) bool { return e.Type == reconcile.EventConflict })
	first, _, _ := w.span()
	if left := w.n.sh("n1", "ip route show 10.244.1.0/24"); !strings.Contains(left, "192.0.2.77") {
		w.n.t.Errorf("the route of others is gone: %s", left)
	}
	w.n.sh("n1", fmt.Sprintf(foreignRoute, "del"))
	w.await(seq, "its end", func(e reconcile.Event) bool { return e.Type == reconcile.EventConflictGone })
	w.isWhole("a conflict")()
	return told.Time.Sub(first)
}

// TestDaemonRepairs: whatever somebody does to a node is undone, and the node
// is then what it was before. Where the host has changed, polder follows.
func TestDaemonRepairs(t *testing.T) {
	t.Parallel()
	w := damagedCluster.watched(t)
	for _, x := range w.n.drifts() {
		t.Run(x.what, func(t *testing.T) {
			w.n.t = t
			w.repaired(x, 1)
		})
	}
	w.n.t = t
	w.conflict()
}

// TestDaemonFollows: where the host's underlay changes, the node's network
// follows, there and back.
func TestDaemonFollows(t *testing.T) {
	t.Parallel()
	for _, m := range moves {
		t.Run(m.what, func(t *testing.T) {
			w := m.watched(t)
			w.followed(m.move, 1)
		})
	}
}

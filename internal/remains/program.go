package remains

import (
	"regexp"
	"slices"
	"strings"

	"github.com/poldernet/polder/internal/flannel"
	"github.com/poldernet/polder/nft"
)

// Program is whose something is.
type Program string

// The programs. Felix is what enforces canal's policies, and Calico's.
const (
	Flannel Program = "flannel"
	Felix   Program = "Felix"
)

// Process is a program that runs here.
type Process struct {
	Of      Program `json:"of"`
	PID     int     `json:"pid"`
	Program string  `json:"program"` // "flanneld", "k3s-server"
	Remedy  string  `json:"remedy"`

	// kubernetes says that it has its nodes from there.
	kubernetes bool
}

// InKubernetes says that flannel runs here, and has its nodes from Kubernetes.
func InKubernetes() (bool, error) {
	list, err := processes()
	return slices.ContainsFunc(list, func(p Process) bool { return p.kubernetes }), err
}

// ofKubernetes says that of a program of flannel's, by its command line. k3s is
// Kubernetes.
func ofKubernetes(name string, args []string) bool {
	return strings.HasPrefix(name, "k3s") || flannel.OfKubernetes(args)
}

// runs tells what a process is by its name, and how to end it. k3s has flannel in
// itself, unless it was told not to: wrote says that something has written a
// subnet.env.
func runs(name string, wrote bool) (of Program, remedy string, ok bool) {
	switch {
	case name == "flanneld" || name == "flannel":
		return Flannel, "before `polder apply`: `systemctl disable --now flanneld`, or on Kubernetes delete flannel's DaemonSet", true
	case strings.HasPrefix(name, "k3s") && wrote:
		return Flannel, "before `polder apply`, restart k3s with --flannel-backend=none", true
	case name == "calico-node" || name == "calico-felix":
		return Felix, "after `polder apply`: on Kubernetes delete canal's DaemonSet", true
	}
	return "", "", false
}

// iptablesTables are those in which a program has chains, of both families.
var iptablesTables = map[Program][]string{
	Flannel: {"nat", "filter"},
	Felix:   {"raw", "mangle", "nat", "filter"},
}

// ownTable says that a table is a program's own (nftables.go in flannel's
// pkg/trafficmngr; table.go in Felix's nftables). Calico's name could be that of
// somebody else's table: what is in it has Felix's prefix.
func (p Program) ownTable(id nft.TableID, chains []nft.ForeignChain) bool {
	switch p {
	case Flannel:
		return id == nft.TableID{Family: nft.IP, Name: "flannel-ipv4"} || id == nft.TableID{Family: nft.IP6, Name: "flannel-ipv6"}
	case Felix:
		return id.Name == "calico" && slices.Contains([]nft.Family{nft.IP, nft.IP6, nft.ARP}, id.Family) &&
			slices.ContainsFunc(chains, func(c nft.ForeignChain) bool { return strings.Contains(c.Name, "cali-") })
	}
	return false
}

// ownChain says that a chain in a table of iptables is a program's own.
func (p Program) ownChain(id nft.TableID, name string) bool {
	if id.Family != nft.IP && id.Family != nft.IP6 || !slices.Contains(iptablesTables[p], id.Name) {
		return false
	}
	if p == Felix {
		return strings.HasPrefix(name, "cali-")
	}
	return name == "FLANNEL-POSTRTG" || name == "FLANNEL-FWD"
}

// felixRule is how Felix marks its rules: a hash of what is in the chain up to
// there (rules.go in its generictables).
var felixRule = regexp.MustCompile(`^cali:[A-Za-z0-9_-]{16}$`)

// ownRule says that a rule in somebody else's chain is a program's own, by what it
// says of itself.
func (p Program) ownRule(r nft.ForeignRule) bool {
	return slices.ContainsFunc(r.Comments(), func(comment string) bool {
		if p == Felix {
			return felixRule.MatchString(comment)
		}
		return comment == "flanneld masq" || comment == "flanneld forward"
	})
}

package overlay

import (
	"strings"

	"github.com/poldernet/polder/spec"
)

// markWord begins the alias of every link of ours.
const markWord = "polder"

// Mark is our sign on a link, kept in its alias (IFLA_IFALIAS): it survives
// renaming and down/up, and `ip link` shows it.
type Mark struct {
	Cluster string
	// MAC is set on an adopted bridge: the address that it had, which its pods
	// know as their gateway's. Writing our own would cut them off until ARP
	// expires, so the address is pinned instead, and this says which it was.
	MAC spec.MAC
}

// String is the alias: "polder cluster=edge" or "polder cluster=edge mac=…".
func (m Mark) String() string {
	s := markWord + " cluster=" + m.Cluster
	if !m.MAC.IsZero() {
		s += " mac=" + m.MAC.String()
	}
	return s
}

// parseMark reads a mark from an alias. It is false for an alias that is not
// ours, such as "polder uplink": the cluster has to be there. Words that it
// does not know are left out: a newer polder may write more.
func parseMark(alias string) (Mark, bool) {
	words := strings.Fields(alias)
	if len(words) == 0 || words[0] != markWord {
		return Mark{}, false
	}
	var m Mark
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "cluster":
			m.Cluster = value
		case "mac":
			if mac, err := spec.ParseMAC(value); err == nil {
				m.MAC = mac
			}
		}
	}
	if m.Cluster == "" {
		return Mark{}, false
	}
	return m, true
}

// Marked says that the link bears our mark, and is of a type that we make: on
// any other the alias is somebody's who wrote it like ours.
func (l Link) Marked() bool {
	_, ok := parseMark(l.Alias)
	return ok && (l.Type == TypeBridge || l.Type == TypeVXLAN)
}

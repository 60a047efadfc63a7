package overlay

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/poldernet/polder/spec"
)

// nextHopOwner is who a nexthop object is for.
type nextHopOwner struct {
	node string
	pods spec.Family
}

// IDs of nexthop objects are 32 bits, shared by everybody in the namespace.
// Small ones are other people's: FRR counts from 1 and people choose by hand.
const (
	nextHopBase = 1 << 30
	nextHopMask = nextHopBase - 1
)

// nextHopIDs gives every node's pod families their nexthop object IDs: a hash
// of the owner, so that nodes that come and go leave the others' alone. Where
// two hashes meet, the later name moves on; among 10,000 objects that happens
// to one file in twenty.
func nextHopIDs(sp *spec.Spec) map[nextHopOwner]uint32 {
	ids := make(map[nextHopOwner]uint32, 2*len(sp.Nodes))
	taken := make(map[uint32]bool, 2*len(sp.Nodes))
	for _, node := range sp.Nodes { // sorted by name
		for _, family := range spec.Families {
			owner := nextHopOwner{node.Name, family}
			id := hashNextHop(sp.Cluster, owner)
			for taken[id] {
				id = nextHopBase | (id+1)&nextHopMask
			}
			taken[id] = true
			ids[owner] = id
		}
	}
	return ids
}

func hashNextHop(cluster string, owner nextHopOwner) uint32 {
	h := fnv.New32a()
	for _, s := range []string{cluster, owner.node, owner.pods.String()} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return nextHopBase | h.Sum32()&nextHopMask
}

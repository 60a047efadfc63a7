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

// nextHopID is the ID of an owner's nexthop object: a hash of the owner, so that nodes
// that come and go leave the others' alone. Where two hashes meet, the later name, to
// which IDs are given later, moves on; among 10,000 objects that happens to one file in
// twenty.
func nextHopID[T any](cluster string, owner nextHopOwner, taken map[uint32]T) uint32 {
	id := hashNextHop(cluster, owner)
	for {
		if _, met := taken[id]; !met {
			return id
		}
		id = nextID(id)
	}
}

// nextID is where an owner moves on to.
func nextID(id uint32) uint32 { return nextHopBase | (id+1)&nextHopMask }

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

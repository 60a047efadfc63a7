// Package change is the vocabulary of a plan: what happens to one kernel
// object, and which of its attributes differ. It is data only. The packages
// that compare states produce changes; the command renders them, as text or as
// JSON, and adds nothing of its own.
package change

// Action is what a plan does to one object.
type Action string

// The actions, in the words that `polder plan --json` prints.
const (
	Create  Action = "create"  // +
	Update  Action = "update"  // ~
	Replace Action = "replace" // -/+
	Delete  Action = "delete"  // -
	Adopt   Action = "adopt"   // ~ adopt: a foreign object of exactly the wanted shape gets our stamp
	Release Action = "release" // ~ release: the stamp is taken off, the object stays
)

// Attr is one attribute of an object. Before is empty on creation, After on
// deletion.
type Attr struct {
	Name   string `json:"name"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	// ForcesReplace says that this difference cannot be written to the living
	// object, so that the object is deleted and made anew.
	ForcesReplace bool `json:"forces_replace,omitempty"`
}

// Change is one line of a plan with what stands below it.
type Change struct {
	Action Action `json:"action"`
	// Kind is the object's kind in the vocabulary of ip(8) and nft(8):
	// "link", "address", "neighbour", "proxy", "fdb", "nexthop", "route", "port",
	// "sysctl", "table", "chain", "set", "map", "counter"; and of the policies'
	// own: "policy", "networkpolicy", "isolation" of an endpoint, "members".
	Kind string `json:"kind"`
	// Name identifies the object among those of its kind, as ip or nft would
	// name it: "cni0", "10.244.1.1/24 dev cni0", "inet polder postrouting".
	Name string `json:"name"`
	// Reason says why, where the attributes alone do not: "link_replaced",
	// "mac_written".
	Reason string `json:"reason,omitempty"`
	// Attrs are, for a creation or deletion, all attributes of the object, and
	// for the other actions those that differ.
	Attrs []Attr `json:"attributes,omitempty"`
	// Unchanged counts the attributes that an update leaves alone.
	Unchanged int `json:"unchanged_attributes,omitempty"`
	// Detail says that this is how other changes of the plan are done: people see
	// it when they ask for it, and it is not counted.
	Detail bool `json:"detail,omitempty"`
}

// Conflict is a foreign object in the way of one of ours. It is never
// overwritten: what depends on it is left out of the plan.
type Conflict struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Reason string `json:"reason"` // what is in the way
	Remedy string `json:"remedy"` // what the user can do about it
}

// Summary counts the changes of a plan by action.
type Summary struct {
	Add     int `json:"add"`
	Change  int `json:"change"`
	Remove  int `json:"remove"`
	Adopt   int `json:"adopt"`
	Release int `json:"release"`
}

// Summarize counts changes as Terraform does: a replacement is one addition
// and one removal.
func Summarize(changes []Change) Summary {
	var s Summary
	for _, c := range changes {
		if c.Detail {
			continue
		}
		switch c.Action {
		case Create:
			s.Add++
		case Update:
			s.Change++
		case Replace:
			s.Add++
			s.Remove++
		case Delete:
			s.Remove++
		case Adopt:
			s.Adopt++
		case Release:
			s.Release++
		}
	}
	return s
}

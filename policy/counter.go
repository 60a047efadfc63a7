package policy

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/poldernet/polder/spec"
)

// Counter says what a named counter of the ruleset counts: the packets about
// which a rule of a policy decided, or about which no rule of a tier did.
type Counter struct {
	Direction spec.Direction
	Policy    *spec.Policy // nil: what the tier's default action decided
	Rule      int          // from 1, in the policy's rules of the direction
	Tier      *spec.Tier   // where Policy is nil
	Action    spec.Action
	Range     hcl.Range // of the rule, or of the tier

	key string // of the rule, among those of its policy and direction
}

// maxLegible is how much of a policy's name is in its counters' names. The rest
// is in the hash behind it.
const maxLegible = 40

// name is the counter's name. It depends on what the rule says, not on where
// it stands: a counter outlives changes of the rules around its own.
func (c Counter) name() string {
	what := "tier " + c.tierName()
	id := what
	if c.Policy != nil {
		what, id = c.Policy.Name, c.Policy.ID()
	}
	return "c_" + legible(what) + "_" + string(c.Direction) + "_" + hash(id, string(c.Direction), c.key)[:12]
}

func (c Counter) tierName() string {
	if c.Tier == nil {
		return ""
	}
	return c.Tier.Name
}

// legible is the beginning of a name in the characters that nft(8) takes for an
// object's name.
func legible(name string) string {
	text := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, name)
	return text[:min(len(text), maxLegible)]
}

// numbering tells apart the rules of a policy that say the same: it counts
// them, by what they say.
type numbering map[string]int

// key identifies a rule by its line. It is to be asked for every rule, in order.
func (n numbering) key(text string) string {
	n[text]++
	return fmt.Sprintf("%s#%d", text, n[text])
}

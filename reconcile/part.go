package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/poldernet/polder/spec"
)

// part is what made the node one of the network, when it last was one: its candidate,
// as the cluster told of it. Its Node may be deleted, or lose what it needs; the node
// then goes on with that part, so that policies go on as well.
type part struct {
	Version    int             `json:"version"`
	Kubernetes spec.Kubernetes `json:"kubernetes"` // whose Node it is
	Candidate  spec.Candidate  `json:"candidate"`
}

const partVersion = 1

func partFile(dir string) string { return filepath.Join(dir, "own-node.json") }

// loadPart takes up the part that the node had in an earlier run, if it was in the
// same cluster.
func (p *Planner) loadPart(k spec.Kubernetes) error {
	b, err := os.ReadFile(partFile(p.options.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var last part
	if err == nil {
		err = json.Unmarshal(b, &last)
	}
	if err != nil {
		return fmt.Errorf("taking up the part in the network of the last run: %w", err)
	}
	if last.Version == partVersion && last.Kubernetes == k && last.Candidate.Name == p.options.Node {
		p.last, p.keptPart = &last, last
	}
	return nil
}

// unkeptPart says that a restart would find another part.
func (p *Planner) unkeptPart() bool { return p.last != nil && *p.last != p.keptPart }

// keepPart writes the part where a restart finds it.
func (p *Planner) keepPart() error {
	b, err := json.MarshalIndent(p.last, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.options.StateDir, 0o755); err != nil {
		return err
	}
	if err := writeAtomically(partFile(p.options.StateDir), append(b, '\n')); err != nil {
		return err
	}
	p.keptPart = *p.last
	return nil
}

// dropPart removes what keepPart wrote.
func (p *Planner) dropPart() error {
	p.keptPart = part{}
	if err := os.Remove(partFile(p.options.StateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the part in the network: %w", err)
	}
	return nil
}

// standIn has the node take the part that it had last, where the cluster gives it none:
// as if its Node were as it was then. Who has claimed something of it since is left out
// on this node.
func (p *Planner) standIn(j *joined) {
	sp, own := p.options.Spec, p.options.Node
	if j.own != nil {
		if c, there := p.members.Candidate(own); there {
			p.last = &part{partVersion, *sp.Kubernetes, c}
		}
		return
	}
	if p.last == nil {
		return
	}
	as := p.last.Candidate
	as.Created = math.MinInt64 // it was here before those who have come since
	p.keepMACs(&as)
	all, out := p.members.With(as, sp, own)
	i := slices.IndexFunc(all, func(n *spec.Node) bool { return n.Name == own })
	if i < 0 {
		return // the spec has no room for it
	}
	mine := slices.DeleteFunc(j.out, func(l spec.LeftOut) bool { return l.Node != own })
	others := slices.DeleteFunc(out, func(l spec.LeftOut) bool { return l.Node == own })
	j.all, j.own, j.out = all, all[i], slices.SortedFunc(slices.Values(append(mine, others...)), spec.LeftOut.Compare)
}

// missing is why the cluster gives the node no part in the network, although what it
// had last may stay in force; nil: it has one.
func (p *Planner) missing() error {
	j := p.nodes()
	if !j.missing {
		return nil
	}
	var why []string
	for _, l := range j.out {
		if l.Node == p.options.Node {
			why = append(why, l.String())
		}
	}
	switch {
	case len(why) > 0:
		return fmt.Errorf("this node has no part in the pod network: %s", strings.Join(why, "; "))
	case p.options.Spec.NodesBeside():
		return fmt.Errorf("node %q is not in the spec or in the cluster", p.options.Node)
	}
	return fmt.Errorf("node %q is not in the spec", p.options.Node)
}

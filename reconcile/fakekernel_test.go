package reconcile

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// fakeKernel is a kernel as a value, behind the seams of kernel.go, in which
// things go wrong on request.
type fakeKernel struct {
	mu      sync.Mutex // streams wait in goroutines of their own
	network *overlay.Model
	rules   *nft.Model
	drops   []nft.ForeignDrop

	streams map[*fakeStream]bool
	// deaf drops notifications, as an overflow does.
	deaf bool
	// dying has streams end as soon as they are opened.
	dying bool
	// unopened is how often subscribing is to fail.
	unopened int

	// refused is how often writing an object is to fail from now on.
	refused map[objectKey]int
	refusal error
	// distasteful is in the text of the rules that it does not take; "": none are.
	distasteful string
	// torn is how many readings are to fail from now on.
	torn int
	// forgotten are the addresses of neighbours to be looked for anew; forgetting is
	// what goes wrong with that.
	forgotten  []netip.Addr
	forgetting error
	// fuse is the number of writes until the process is killed; below 0: never.
	fuse int
	// before is called before each access, with its name.
	before func(access string)
	count  map[string]int // of accesses
}

func newFakeKernel(addresses ...netip.Prefix) *fakeKernel {
	return &fakeKernel{
		network: overlay.NewModel(overlay.Link{Name: "eth0", MTU: 1500}, addresses...), rules: nft.NewModel(),
		streams: map[*fakeStream]bool{}, refused: map[objectKey]int{}, fuse: -1, count: map[string]int{},
	}
}

// access is called at the beginning of each access by the daemon. It takes a
// while: what is written is told before it is read.
func (k *fakeKernel) access(name string) {
	elapse(time.Microsecond)
	k.mu.Lock()
	k.count[name]++
	before := k.before
	k.mu.Unlock()
	if before != nil {
		before(name)
	}
}

// do changes the kernel, and tells of that.
func (k *fakeKernel) do(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	events, commits := k.network.Events(), k.rules.Commits()
	if k.deaf {
		return
	}
	for s := range k.streams {
		s.events = append(s.events, events...)
		s.commits = append(s.commits, commits...)
		s.ring()
	}
}

// fail has every stream end with an error, or go on after one that is ErrLost.
func (k *fakeKernel) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for s := range k.streams {
		if s.err == nil {
			s.err = err
		}
		s.ring()
	}
}

// burn counts a write, and kills the process if it is the one before which
// that is to happen: nothing that the daemon would do afterwards is done.
func (k *fakeKernel) burn() {
	if k.fuse == 0 {
		k.fuse = -1
		runtime.Goexit()
	}
	if k.fuse > 0 {
		k.fuse--
	}
}

// reading is the error of a reading: a dump that was never of one piece.
func (k *fakeKernel) reading() error {
	if k.torn == 0 {
		return nil
	}
	k.torn--
	return errTorn
}

// refuse is the error of writing an object.
func (k *fakeKernel) refuse(key objectKey) error {
	if k.refused[key] == 0 {
		return nil
	}
	k.refused[key]--
	return k.refusal
}

// fakeNetwork is the rtnetlink side of a fakeKernel.
type fakeNetwork struct{ *fakeKernel }

func (fakeNetwork) Close() error { return nil }

func (k fakeNetwork) Read(_ context.Context, scope overlay.Scope) (*overlay.Observed, error) {
	k.access("read")
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.network.Read(scope), k.reading()
}

func (k fakeNetwork) Refresh(_ context.Context, old *overlay.Observed, classes overlay.Class) (*overlay.Observed, error) {
	k.access("refresh")
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.network.Refresh(old, classes), k.reading()
}

func (k fakeNetwork) Ask(o *overlay.Observed, sp *spec.Spec, node *spec.Node, gone, come []*spec.Node) (bool, error) {
	k.access("ask")
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.network.Ask(o, sp, node, gone, come), k.reading()
}

func (k fakeNetwork) Sysctls(paths []string) (map[string]string, error) {
	k.access("sysctls")
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.network.Sysctls(paths), k.reading()
}

func (k fakeNetwork) ForwardingResets(f spec.Family) (map[string]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wanted := map[string]string{"net/" + f.String() + "/conf/default/forwarding": "1"}
	for name := range k.network.Read(overlay.Scope{}).Facts.Links {
		wanted["net/"+f.String()+"/conf/"+name+"/forwarding"] = "1"
	}
	values := k.network.Sysctls(slices.Collect(maps.Keys(wanted)))
	maps.DeleteFunc(values, func(path, value string) bool { return value != wanted[path] })
	return values, nil
}

func (k fakeNetwork) Forget(_ string, addresses []netip.Addr) error {
	k.access("forget")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgotten = append(k.forgotten, addresses...)
	return k.forgetting
}

func (k fakeNetwork) Apply(_ context.Context, ops []overlay.Op, report func(i int, err error)) {
	k.access("apply")
	for i, op := range ops {
		k.burn()
		err := k.refuse(keyOf(op.Change))
		if err == nil {
			k.do(func() { err = k.network.Apply(op) })
		}
		report(i, err)
	}
}

// rulesKey stands for any transaction of nftables where writes are refused.
var rulesKey = objectKey{"rules", ""}

// fakeRuleset is its nftables side.
type fakeRuleset struct{ *fakeKernel }

func (fakeRuleset) Close() error { return nil }

func (k fakeRuleset) Read(_ context.Context, ids ...nft.TableID) (nft.Ruleset, nft.Generation, error) {
	k.access("rules")
	k.mu.Lock()
	defer k.mu.Unlock()
	rs, gen := k.rules.Read(ids...)
	return rs, gen, k.reading()
}

func (k fakeRuleset) ForeignDrops(context.Context) ([]nft.ForeignDrop, error) {
	k.access("firewalls")
	return k.drops, nil
}

func (k fakeRuleset) Commit(_ context.Context, p *nft.Plan, gen nft.Generation) (after nft.Generation, err error) {
	k.access("commit")
	k.do(func() {
		after, err = k.rules.Commit(p, gen, func() error {
			k.burn()
			return errors.Join(k.refuse(rulesKey), k.taste(p.String()))
		})
	})
	return after, err
}

func (k fakeRuleset) Try(_ context.Context, t nft.Table) (err error) {
	k.access("try")
	k.do(func() {
		err = k.rules.Try(t, func() error {
			if k.refused[rulesKey] > 0 { // it is no attempt at writing
				return k.refusal
			}
			return k.taste(t.String())
		})
	})
	return err
}

// taste is the error of writing rules of that text.
func (k fakeRuleset) taste(text string) error {
	if k.distasteful != "" && strings.Contains(text, k.distasteful) {
		return errRefused
	}
	return nil
}

// errTorn, errRefused and errDead are what goes wrong.
var (
	errTorn    = errors.New("the dump was never of one piece")
	errRefused = errors.New("refused")
	errDead    = errors.New("the socket is dead")
)

// fakeStream is a subscription to a fakeKernel.
type fakeStream struct {
	*fakeKernel
	events  []overlay.Event
	commits []nft.Commit
	err     error
	bell    chan struct{} // of capacity 1: there is something
}

// subscribe opens a stream.
func (k *fakeKernel) subscribe() (*fakeStream, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unopened > 0 {
		k.unopened--
		return nil, errDead
	}
	// Of what was before nobody is told.
	k.network.Events()
	k.rules.Commits()
	s := &fakeStream{fakeKernel: k, bell: make(chan struct{}, 1)}
	k.streams[s] = true
	if k.dying {
		s.err = errDead
	}
	return s, nil
}

func (s *fakeStream) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

func (s *fakeStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, s)
	return nil
}

// wait waits until take says that it has something.
func (s *fakeStream) wait(ctx context.Context, take func() bool) error {
	for {
		s.mu.Lock()
		err := s.err
		s.err = nil
		took := err == nil && take()
		s.mu.Unlock()
		if err != nil || took {
			return err
		}
		select {
		case <-s.bell:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type fakeNetworkEvents struct{ *fakeStream }

func (s fakeNetworkEvents) Next(ctx context.Context) (events []overlay.Event, err error) {
	err = s.wait(ctx, func() bool {
		events, s.events = s.events, nil
		return len(events) > 0
	})
	return events, err
}

type fakeRulesetEvents struct{ *fakeStream }

func (s fakeRulesetEvents) Next(ctx context.Context) (c nft.Commit, err error) {
	err = s.wait(ctx, func() bool {
		if len(s.commits) == 0 {
			return false
		}
		c, s.commits = s.commits[0], s.commits[1:]
		return true
	})
	return c, err
}

// offers are the subscriptions of a daemon to the fake kernel.
func (k *fakeKernel) offers() []*subscription {
	return []*subscription{
		{name: "rtnetlink", dirt: dirt{network: overlay.Everything, sysctls: true}, open: func() (stream, error) {
			s, err := k.subscribe()
			return networkStream{fakeNetworkEvents{s}}, err
		}},
		{name: "nftables", dirt: dirt{rules: true}, open: func() (stream, error) {
			s, err := k.subscribe()
			return rulesetStream{fakeRulesetEvents{s}}, err
		}},
	}
}

package reconcile

import (
	"context"
	"net/netip"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
	"github.com/poldernet/polder/spec"
)

// What a planner, an applier and a daemon need of the kernel. Those that plan
// have no method that writes.
type (
	networkReader interface {
		Read(ctx context.Context, scope overlay.Scope) (*overlay.Observed, error)
		Refresh(ctx context.Context, old *overlay.Observed, classes overlay.Class) (*overlay.Observed, error)
		Ask(o *overlay.Observed, sp *spec.Spec, node *spec.Node, gone, come []*spec.Node) (bool, error)
		Sysctls(paths []string) (map[string]string, error)
		ForwardingResets(f spec.Family) (map[string]string, error)
		Close() error
	}
	rulesetReader interface {
		Read(ctx context.Context, ids ...nft.TableID) (nft.Ruleset, nft.Generation, error)
		ForeignDrops(ctx context.Context) ([]nft.ForeignDrop, error)
		Close() error
	}
	networkWriter interface {
		Apply(ctx context.Context, ops []overlay.Op, report func(i int, err error))
		Forget(link string, addresses []netip.Addr) error
		Close() error
	}
	rulesetWriter interface {
		Commit(ctx context.Context, p *nft.Plan, gen nft.Generation) (nft.Generation, error)
		Try(ctx context.Context, t nft.Table) error
		Close() error
	}
	networkEvents interface {
		Next(ctx context.Context) ([]overlay.Event, error)
		Close() error
	}
	rulesetEvents interface {
		Next(ctx context.Context) (nft.Commit, error)
		Close() error
	}
)

// specSource is where a daemon's spec comes from. Its watch delivers it each
// time that it changes, until ctx ends.
type specSource interface {
	load(node string) *loaded
	watch(ctx context.Context, node string, files []string, box *mailbox)
}

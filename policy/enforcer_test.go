package policy

import (
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/nft"
)

// fakeKernel commits to a model of the kernel.
type fakeKernel struct {
	*nft.Model
	fails bool
}

func (k *fakeKernel) Commit(_ context.Context, p *nft.Plan, gen nft.Generation) error {
	return k.Model.Commit(p, gen, func() error {
		if k.fails {
			k.fails = false
			return errors.New("the kernel is out of memory")
		}
		return nil
	})
}

func (k *fakeKernel) table() (nft.Table, nft.Generation) {
	id := nft.TableID{Family: nft.INet, Name: nft.TableName}
	rs, gen := k.Read(id)
	t, _ := rs.Table(id)
	return t, gen
}

// Whatever happens, the kernel holds what the model comes to under the names that
// are in force, and members have changed in place only where that is harmless.
// What is started is what Compile makes of what was in the kernel before.
func TestEnforcer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawing{t}
		w := newWorld(d.frame())
		x := NewIndex(w.model(), indexHost)
		k := &fakeKernel{Model: nft.NewModel()}
		beside := nft.Table{Family: nft.INet, Name: nft.TableName, Chains: []nft.Chain{{Name: "others"}}}
		e := NewEnforcer(x, k, beside)
		start := func() {
			live, gen := k.table()
			if err := e.Start(context.Background(), live, gen); err != nil {
				t.Fatal(err)
			}
		}
		start()
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			d.event(w, x)
			switch d.number(12, "beside") {
			case 0, 1, 2:
				continue // two at once
			case 3:
				k.fails = true
			case 4, 5:
				k.Put("kube-proxy", nft.Table{Family: nft.IP, Name: "kube-proxy"})
			case 6:
				k.Delete("somebody", nft.TableID{Family: nft.INet, Name: nft.TableName})
			}
			if d.number(2, "observe") == 0 {
				for _, c := range k.Commits() {
					e.Observe(c)
				}
			}
			live, _ := k.table()
			if err := e.Commit(context.Background()); err != nil {
				k.fails = false
				live, _ = k.table()
				start()
				got, _ := k.table()
				equalTables(t, "started", got, nft.Merge(Compile(w.model(), indexHost, live).Table, beside))
				continue
			}
			if live.Empty() {
				continue // it is gone, and nothing had to be committed that noticed
			}
			got, _ := k.table()
			suffix, _, _ := suffixes(got)
			c := NewIndex(w.model(), indexHost).build(suffix)
			equalTables(t, "in the kernel", got, nft.Merge(c.table, beside))
			if changed := c.changed(live); len(changed) > 0 && !(c.inForce(live) && c.harmless(changed)) {
				t.Fatalf("members change in place: %v", changed)
			}
		}
	})
}

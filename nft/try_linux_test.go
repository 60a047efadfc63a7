package nft

import (
	"context"
	"testing"

	"github.com/poldernet/polder/spec"
)

// What is tried leaves nothing, whether the kernel takes it or not.
func TestTry(t *testing.T) {
	k := newKernel(t)
	k.nft("list ruleset") // or skip
	good := Table{
		Family: INet, Name: TableName, Counters: []string{"c"},
		Sets:   []Set{{Name: "s", Key: []Type{TypeIPv4Addr}}},
		Chains: []Chain{{Name: "a", Rules: []Rule{NewRule("", Saddr(spec.IPv4).In("s"), Do(CounterRef{"c"}, Drop))}}},
	}
	bad := good
	bad.Chains = []Chain{{Name: "a", Rules: []Rule{NewRule("", Do(Payload{Base: 77, Len: 4}, Drop))}}}
	k.apply(good) // of the same names, in force
	before := k.nft("list ruleset")
	if err := k.w.Try(context.Background(), good); err != nil {
		t.Errorf("the kernel refuses what it takes: %v", err)
	}
	if err := k.w.Try(context.Background(), bad); err == nil {
		t.Error("the kernel takes a load from nowhere")
	}
	if after := k.nft("list ruleset"); after != before {
		t.Errorf("something is left:\n%s", after)
	}
}

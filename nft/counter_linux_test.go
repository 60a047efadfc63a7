package nft

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
)

func TestCounters(t *testing.T) {
	k := newKernel(t)
	counters := func() map[string]CounterValue {
		t.Helper()
		values, err := k.w.reader.Counters(context.Background(), inetPolder)
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	if got := counters(); len(got) > 0 {
		t.Errorf("of no table: %v", got)
	}
	want := map[string]CounterValue{}
	var script strings.Builder
	for i := range 500 { // several messages
		name, v := fmt.Sprintf("policy_%d", i), CounterValue{Packets: uint64(i), Bytes: uint64(i) << 40}
		want[name] = v
		fmt.Fprintf(&script, "add counter inet polder %s { packets %d bytes %d }\n", name, v.Packets, v.Bytes)
	}
	k.nft("add table inet polder\n" + script.String() + `
add quota inet polder q { 1 mbytes }
add table bridge polder
add counter bridge polder policy_7 { packets 1 bytes 1 }
add table inet other
add counter inet other policy_7 { packets 2 bytes 2 }`)
	if got := counters(); !maps.Equal(got, want) {
		t.Errorf("%d counters, want %d:\n%v", len(got), len(want), got)
	}
}

package nft

import (
	"testing"

	"pgregory.net/rapid"
)

// The kernel takes every plan, and holds what was desired afterwards: from
// table to table, without a fresh start.
func TestKernelTransitions(t *testing.T) {
	k := newKernel(t)
	rapid.Check(t, func(t *rapid.T) {
		k.t = t
		first, second := drawPair(t)
		k.apply(first)
		k.apply(second)
		if rapid.IntRange(0, 4).Draw(t, "destroy") == 0 {
			k.apply()
		}
	})
	k.t = t
}

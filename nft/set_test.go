package nft

import (
	"slices"
	"testing"
)

// A set that is told an element twice holds it once, in whatever order it is
// told.
func TestElementsOnce(t *testing.T) {
	a, b := Exact(Number(1)), Exact(Number(2))
	for _, list := range [][]Element{{a, a, b, b}, {b, a, b, a}, {a, b}} {
		got := (Table{Sets: []Set{{Name: "s", Elements: list}}}).canonical().Sets[0].Elements
		if !slices.Equal(got, []Element{a, b}) {
			t.Errorf("%v comes to %v", list, got)
		}
	}
}

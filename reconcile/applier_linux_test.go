package reconcile

import (
	"context"
	"testing"
)

// TestEmptyPlanForgets: an apply that was killed before it wrote anything has
// noted what it meant to write. A plan that finds nothing to do forgets it, or
// the value would be put back should somebody else come to write the same.
func TestEmptyPlanForgets(t *testing.T) {
	for _, mode := range []Mode{ModeDestroy, ModeRelease} {
		t.Run(string(mode), func(t *testing.T) {
			ns, dir := namespace(t, "n1"), t.TempDir()
			noted := newMemory()
			noted.Sysctls["net/ipv4/ip_forward"] = remembered{Before: "0", Ours: "7"}
			if err := noted.saveOver(newMemory(), dir); err != nil {
				t.Fatal(err)
			}
			a, err := openIn(ns, dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			}()
			err = ns.Do(func() error {
				plan, err := a.Plan(context.Background(), mode)
				if err != nil {
					return err
				}
				if !plan.Empty() {
					t.Fatalf("the plan has changes: %+v", plan.Changes)
				}
				_, err = a.Apply(context.Background(), plan, func(Outcome) {})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if left, err := loadMemory(dir); err != nil || len(left.Sysctls) > 0 {
				t.Errorf("still remembered: %+v %v", left, err)
			}
		})
	}
}

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/reconcile"
)

// TestAvailable: STATUS has the codes that CNI 1.1 gives to why nothing is attached.
func TestAvailable(t *testing.T) {
	for _, c := range []struct {
		condition view.Condition
		code      uint
		says      string
	}{
		{condition: view.Condition{Attachable: true, InSync: true}},
		{condition: view.Condition{Attachable: true, Failures: make([]view.Failure, 2)}},
		{view.Condition{Held: reconcile.ModeDestroy}, types.ErrLimitedConnectivity, "destroyed; it is held until polder apply"},
		{view.Condition{Held: reconcile.ModeRelease}, types.ErrPluginNotAvailable, "held since polder release"},
		{view.Condition{Failures: make([]view.Failure, 2)}, types.ErrLimitedConnectivity, "2 objects fail"},
		{view.Condition{Cluster: &view.ClusterCondition{}}, types.ErrPluginNotAvailable, "waits for the cluster"},
		{view.Condition{Cluster: &view.ClusterCondition{Known: true}}, types.ErrPluginNotAvailable, "see polder status"},
	} {
		err := available(c.condition)
		var said *types.Error
		errors.As(err, &said)
		if (err == nil) != (c.code == 0) || err != nil && (said.Code != c.code || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v", c.condition, err)
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/overlay"
)

// taken fails if an address of a container is another one's, which has a link and a
// route of its own, as those that canal made have: host-local gives addresses away
// that it does not know to be taken, as where the network has another name than
// canal's. Packets to the address would go the way of that route.
func taken(ctx context.Context, p attach.Port) (err error) {
	r, err := overlay.OpenReader()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var scope overlay.Scope
	for _, a := range p.Addresses {
		scope.Pods = append(scope.Pods, netip.PrefixFrom(a, a.BitLen()))
	}
	observed, err := r.Read(ctx, scope)
	if err != nil {
		return err
	}
	for _, a := range p.Addresses {
		if link, routed := observed.Facts.Routed[a]; routed && link != p.Interface {
			return fmt.Errorf("a route leads to %s by %s, and the container is at %s", a, link, p.Interface)
		}
	}
	return nil
}

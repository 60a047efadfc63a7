package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/poldernet/polder/spec"
)

// result is what the plugins before have done, of which versions 0.3.0 to 1.1.0 of
// CNI say the same here.
type result struct {
	Interfaces []struct {
		Name    string `json:"name"`
		MAC     string `json:"mac"`
		Sandbox string `json:"sandbox"` // "": an interface of the node
	} `json:"interfaces"`
	IPs []struct {
		Address   string `json:"address"`
		Interface *int   `json:"interface"`
	} `json:"ips"`
}

// maxName is the longest name of an interface, in bytes (IFNAMSIZ less the NUL).
const maxName = 15

// ParseResult finds in a prevResult how the interface of a container hangs on the
// bridge. Its port is the last of the node's interfaces that are listed before it:
// the bridge plugin lists the bridge, the port and the container's.
func ParseResult(text []byte, ifName string) (Port, error) {
	var r result
	if err := json.Unmarshal(text, &r); err != nil {
		return Port{}, fmt.Errorf("reading prevResult: %w", err)
	}
	var p Port
	inside := -1
	for i, link := range r.Interfaces {
		if link.Sandbox == "" {
			p.Interface = link.Name
			continue
		}
		if link.Name != ifName {
			continue
		}
		mac, err := spec.ParseMAC(link.MAC)
		if err == nil && !mac.IsUnicast() {
			err = fmt.Errorf("%s is that of no interface", mac)
		}
		if err != nil {
			return Port{}, fmt.Errorf("prevResult: the MAC of %s: %w", ifName, err)
		}
		p.MAC, inside = mac, i
		break
	}
	switch {
	case inside < 0:
		return Port{}, fmt.Errorf("prevResult has no interface %q in a sandbox", ifName)
	case p.Interface == "":
		return Port{}, fmt.Errorf("prevResult does not say which of the node's interfaces leads to %s", ifName)
	case len(p.Interface) > maxName:
		return Port{}, fmt.Errorf("prevResult: %q is no name of an interface", p.Interface)
	}
	for _, ip := range r.IPs {
		if ip.Interface != nil && *ip.Interface != inside {
			continue
		}
		a, err := address(ip.Address)
		if err != nil {
			return Port{}, fmt.Errorf("prevResult: %w", err)
		}
		if !slices.Contains(p.Addresses, a) {
			p.Addresses = append(p.Addresses, a)
		}
	}
	if len(p.Addresses) == 0 {
		return Port{}, errors.New("prevResult has no address: policies know a container by its addresses")
	}
	slices.SortFunc(p.Addresses, netip.Addr.Compare)
	return p, nil
}

func address(text string) (netip.Addr, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Addr{}, err
	}
	a := prefix.Addr()
	if a.Is4In6() || !a.IsGlobalUnicast() {
		return netip.Addr{}, fmt.Errorf("%s is no address of a container", a)
	}
	return a, nil
}

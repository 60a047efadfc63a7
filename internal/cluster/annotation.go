package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/poldernet/polder/spec"
)

// Annotations of flannel's (flannel, pkg/subnet/kube/annotations.go).
const (
	flannelPrefix  = "flannel.alpha.coreos.com/"
	flannelManaged = flannelPrefix + "kube-subnet-manager" // "true": it takes part
	flannelType    = flannelPrefix + "backend-type"
)

// What flannel has of each family.
var (
	flannelData      = spec.PerFamily[string]{IPv4: flannelPrefix + "backend-data", IPv6: flannelPrefix + "backend-v6-data"}
	flannelAddress   = spec.PerFamily[string]{IPv4: flannelPrefix + "public-ip", IPv6: flannelPrefix + "public-ipv6"}
	flannelOverwrite = spec.PerFamily[string]{IPv4: flannelPrefix + "public-ip-overwrite", IPv6: flannelPrefix + "public-ipv6-overwrite"}
	flannelChosen    = spec.PerFamily[string]{IPv4: flannelPrefix + "node-public-ip", IPv6: flannelPrefix + "node-public-ipv6"}
)

// Annotations of polder's.
var (
	polderAddress = spec.PerFamily[string]{IPv4: "polder.net/ipv4-address", IPv6: "polder.net/ipv6-address"}
	polderMAC     = spec.PerFamily[string]{IPv4: "polder.net/ipv4-vtep-mac", IPv6: "polder.net/ipv6-vtep-mac"}
)

// noBackend is the type of flannel's backends that name none (udp, alloc).
const noBackend spec.BackendType = "none"

// annotations are those that are of use here, of both families.
var annotations = func() (keys []string) {
	keys = []string{flannelManaged, flannelType}
	for _, of := range []spec.PerFamily[string]{flannelData, flannelAddress, flannelOverwrite, flannelChosen, polderAddress, polderMAC} {
		keys = append(keys, of.IPv4, of.IPv6)
	}
	return keys
}()

// backendData is what flannel's backend vxlan publishes. Its fields have the names
// that they have in Go, in this order.
type backendData struct {
	VNI     uint32
	VtepMAC spec.MAC
}

// noData is what its backends publish that have nothing to say.
const noData = "null"

func encodeBackendData(d backendData) string {
	b, err := json.Marshal(d)
	if err != nil {
		return noData // of a number and a text: it does not occur
	}
	return string(b)
}

// decodeBackendData reads the MAC. The VNI is each node's own affair.
func decodeBackendData(text string) (spec.MAC, error) {
	var d struct{ VtepMAC *spec.MAC }
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return spec.MAC{}, err
	}
	if d.VtepMAC == nil {
		return spec.MAC{}, nil
	}
	if !d.VtepMAC.IsUnicast() {
		return spec.MAC{}, fmt.Errorf("%s is the MAC of no interface", d.VtepMAC)
	}
	return *d.VtepMAC, nil
}

// reading collects what is published of one node.
type reading struct {
	node *corev1.Node
	spec.Published
}

// garbled notes that an annotation cannot be read. The first of a family is told.
func (r *reading) garbled(f spec.Family, key string, err error) {
	const most = 100 // bytes of a text that anybody may write
	if r.Garbled.Get(f) == "" {
		r.Garbled.Set(f, fmt.Sprintf("its annotation %s cannot be read: %s", key, cut(err.Error(), most)))
	}
}

// address reads an address of a family.
func (r *reading) address(f spec.Family, key string) netip.Addr {
	text, there := r.node.Annotations[key]
	if !there {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err == nil && (spec.FamilyOf(a) != f || a.Zone() != "" || a.Is4In6()) {
		err = fmt.Errorf("%s is no address of %s", a, f)
	}
	if err != nil {
		r.garbled(f, key, err)
		return netip.Addr{}
	}
	return a
}

// flannelOf is what a node says in flannel's words.
func flannelOf(n *corev1.Node) spec.Published {
	r := reading{node: n}
	for _, f := range spec.Families {
		r.Chosen.Set(f, r.address(f, flannelChosen.Get(f)))
	}
	if n.Annotations[flannelManaged] != "true" {
		return r.Published
	}
	if r.Backend = spec.BackendType(cut(n.Annotations[flannelType], 20)); r.Backend == "" {
		r.Backend = noBackend
	}
	for _, f := range spec.Families {
		r.Addresses.Set(f, r.address(f, flannelAddress.Get(f)))
		text, there := n.Annotations[flannelData.Get(f)]
		if !there || r.Backend != spec.VXLAN {
			continue
		}
		mac, err := decodeBackendData(text)
		if err != nil {
			r.garbled(f, flannelData.Get(f), err)
		}
		r.MACs.Set(f, mac)
	}
	return r.Published
}

// polderOf is what a node says in polder's words.
func polderOf(n *corev1.Node) spec.Published {
	r := reading{node: n}
	for _, f := range spec.Families {
		r.Addresses.Set(f, r.address(f, polderAddress.Get(f)))
		text, there := n.Annotations[polderMAC.Get(f)]
		if !there {
			continue
		}
		mac, err := spec.ParseMAC(text)
		if err == nil && !mac.IsUnicast() {
			err = fmt.Errorf("%s is the MAC of no interface", mac)
		}
		if err != nil {
			r.garbled(f, polderMAC.Get(f), err)
			continue
		}
		r.MACs.Set(f, mac)
	}
	return r.Published
}

package flannel

import (
	"slices"
	"strings"
)

// cni is what a cni-conf.json says of the bridge.
type cni struct {
	bridge  string // "": cni0
	hairpin bool
	name    string   // of the network
	others  []string // plugins beside flannel that are in no list of polder's
	dropped []string // fields of the delegate
}

// Fields of the delegate that are as polder's bridge is anyhow, and what the
// others are.
var (
	delegateFields = []string{"type", "bridge", "hairpinMode", "isGateway", "isDefaultGateway"}
)

// cni reads the part as a cni-conf.json: a list of plugins, or one.
func (p part) cni() *cni {
	v, ok := p.json()
	if !ok {
		return nil
	}
	r := configReader{part: p}
	if !r.is(v, object, "The CNI configuration", `{"name": "cbr0", "plugins": [{"type": "flannel"}]}`) {
		return nil
	}
	plugins := []value{v}
	if m, ok := v.get("plugins"); ok {
		if !r.is(m.value, list, "plugins", `[{"type": "flannel"}]`) {
			return nil
		}
		plugins = m.items
	}
	var found *cni
	var others []string
	for _, plugin := range plugins {
		t, _ := plugin.get("type")
		switch t.text {
		case "flannel":
			found = r.delegate(plugin)
		case "portmap":
		default:
			others = append(others, quoted(t.text))
		}
	}
	if found != nil {
		found.others = others
		name, _ := v.get("name")
		found.name = name.text
	}
	return found
}

// delegate reads what flannel's plugin gives to the bridge plugin.
func (r *configReader) delegate(plugin value) *cni {
	c := &cni{}
	m, there := plugin.get("delegate")
	if !there || m.kind == null || !r.is(m.value, object, "delegate", `{"hairpinMode": true}`) {
		return c
	}
	c.hairpin = r.truth(m.value, "hairpinMode", false)
	if b, ok := m.get("bridge"); ok {
		name, _ := r.text(b.value, "bridge", "cni0")
		if strings.ContainsAny(name, "/ \t\n") || len(name) > 15 {
			r.fail(b.span, "Unsuitable bridge", "%q is no name of an interface.", name)
		}
		c.bridge = name
	}
	if t, ok := m.get("type"); ok && t.text != "bridge" {
		c.dropped = append(c.dropped, "type "+quoted(t.text))
	}
	for _, f := range m.members {
		if !slices.ContainsFunc(delegateFields, func(k string) bool { return strings.EqualFold(k, f.name) }) {
			c.dropped = append(c.dropped, quoted(f.name))
		}
	}
	return c
}

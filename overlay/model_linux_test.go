package overlay

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// lockstep is a host and the model of it.
type lockstep struct {
	*watching
	model *Model
	did   []string
}

// same fails unless the model is at what the kernel is at.
func (l *lockstep) same(t *rapid.T) *Observed {
	kernel, _ := l.read()
	fake := l.model.Read(ScopeOf(l.sp, l.sp.Nodes[0]))
	var paths []string
	for _, name := range append([]string{"eth0"}, slices.Collect(maps.Keys(kernel.State.Links))...) {
		paths = append(paths, "net/ipv4/conf/"+name+"/forwarding", linkSysctl(name, "accept_ra"))
	}
	paths = append(paths, "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
	l.do(func() (err error) {
		kernel.State.Sysctls, err = l.reader.Sysctls(paths)
		return err
	})
	fake.State.Sysctls = l.model.Sysctls(paths)
	if a, b := l.text(kernel), l.text(fake); a != b {
		t.Fatalf("after\n%s\nthe kernel is at\n%s\nand the model differs:\n%s", strings.Join(l.did, "\n"), a, difference(a, b))
	}
	return fake
}

func (l *lockstep) text(o *Observed) string {
	text := o.State.String()
	for _, a := range o.asked {
		text += fmt.Sprintf("path %s %+v\n", a, o.Facts.Paths[a])
	}
	return text
}

// difference lists the lines that only one of two texts has.
func difference(a, b string) string {
	var out []string
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, line := range as {
		if !slices.Contains(bs, line) {
			out = append(out, "kernel: "+line)
		}
	}
	for _, line := range bs {
		if !slices.Contains(as, line) {
			out = append(out, "model:  "+line)
		}
	}
	return strings.Join(out, "\n")
}

// TestModelIsTheKernel: specs and damages at random, on a real kernel and on
// the model. After every step they are at the same state, each operation fails
// on both or on none, and what the model announces is enough to follow it.
func TestModelIsTheKernel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawCluster(rt, "first")
		l := &lockstep{watching: newWatching(t, c.spec()), model: newModel(dual)}
		l.sh("ip link set eth0 mtu 1500; ip link add v1 type veth peer name p1; ip link set v1 up; ip link set p1 up")
		for _, name := range []string{"wire", "v1", "p1"} {
			l.model.Plug(name)
		}
		held := l.same(rt)
		for i := range rapid.IntRange(2, 12).Draw(rt, "steps") {
			label := fmt.Sprint("step ", i)
			switch rapid.IntRange(0, 6).Draw(rt, label) {
			case 0:
				c = drawCluster(rt, label)
				l.sp = c.spec()
				held = l.model.Read(ScopeOf(l.sp, l.sp.Nodes[0]))
				fallthrough
			case 1, 2:
				l.reconcile(rt)
			case 3:
				if _, there := l.model.state.Links[c.bridge]; there {
					l.did = append(l.did, "ip link set v1 master "+c.bridge)
					l.sh("ip link set v1 master " + c.bridge)
					l.model.enslave("v1", c.bridge)
				}
			default:
				if damages := l.model.Damages("eth0"); len(damages) > 0 {
					d := rapid.SampledFrom(damages).Draw(rt, label+" damage")
					l.did = append(l.did, d.Command)
					l.sh(d.Command)
					l.model.Do(d)
				}
			}
			fake := l.same(rt)
			classes := concerns(held, l.model.Events()) | silent(held, fake)
			partial := l.model.Refresh(held, classes)
			partial.State.Sysctls = fake.State.Sysctls // which are read by themselves
			if a, b := l.text(fake), l.text(partial); a != b {
				rt.Fatalf("after\n%s\n%s of the model were read again, and it differs:\n%s", strings.Join(l.did, "\n"), classes, difference(a, b))
			}
			held = partial
		}
	})
}

// reconcile plans from the kernel, and applies to both.
func (l *lockstep) reconcile(t *rapid.T) {
	o, _ := l.read()
	plan, _ := l.plan(o)
	l.did = append(l.did, "apply "+plan.text())
	var kernel, model []string
	l.do(func() error {
		l.writer.Apply(t.Context(), plan.Ops, func(i int, err error) {
			if err != nil {
				kernel = append(kernel, fmt.Sprint(i))
				l.t.Log(err)
			}
		})
		return nil
	})
	for i, op := range plan.Ops {
		if err := l.model.Apply(op); err != nil {
			model = append(model, fmt.Sprint(i))
			l.t.Log(err)
		}
	}
	if !slices.Equal(kernel, model) {
		t.Fatalf("after\n%s\noperations %v fail on the kernel, and %v on the model", strings.Join(l.did, "\n"), kernel, model)
	}
}

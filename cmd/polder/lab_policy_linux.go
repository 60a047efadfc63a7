package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fatih/color"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/policy/spoof"
	"github.com/poldernet/polder/spec"
)

// demoPolicy is what the demo adds to its spec, and demoPeers the line of it
// that somebody takes out.
const (
	demoPolicy = `policy "db" {
  selector = "app == 'db'"

  ingress {
    action = "allow"
    ports  = ["5432/tcp"]
` + demoPeers + `  }
}

check "db is closed" {
  from   = "outside"
  to     = "endpoint.db-1"
  port   = "5432/tcp"
  expect = "deny"
}
`
	demoPeers = "    from { selector = \"app == 'web'\" }\n"
)

// database is what the policy is about.
var database = ask{protocol: lab.TCP, port: 5432}

// isolate adds a policy, and shows what it does and what it keeps out.
func (d *demo) isolate() error {
	file, first := filepath.Join(lab.SpecDir, "policy.hcl"), d.spec.Nodes[0].Name
	d.heading("Who may reach whom: everybody, until a policy is in the spec")
	if err := d.show(first, "policy", "matrix"); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(demoPolicy), 0o600); err != nil {
		return fmt.Errorf("writing the policy: %w", err)
	}
	d.shell(first, "cat "+file)
	fmt.Fprint(d.out, demoPolicy)
	if err := d.show(first, "plan"); err != nil {
		return err
	}
	d.heading("Apply on every node")
	for _, n := range d.spec.Nodes {
		if err := d.apply(n.Name); err != nil {
			return err
		}
	}
	if err := d.show(first, "policy", "matrix"); err != nil {
		return err
	}
	if err := d.reachDatabases(); err != nil {
		return err
	}
	d.heading("Why not?")
	if err := d.exits(int(exitDenied), first, "explain", "db-2", "db-1", database.String()); err != nil {
		return err
	}
	d.heading("A mistake that a check keeps out")
	d.shell(first, "sed -i '/from {/d' "+file)
	if err := os.WriteFile(file, []byte(strings.Replace(demoPolicy, demoPeers, "", 1)), 0o600); err != nil {
		return fmt.Errorf("writing the policy: %w", err)
	}
	err := d.exits(int(exitError), first, "validate")
	if err = errors.Join(err, os.WriteFile(file, []byte(demoPolicy), 0o600)); err != nil {
		return err
	}
	return d.lie("db-1", "web-1", "db-2")
}

// shell shows a command that the demo does the work of.
func (d *demo) shell(node, command string) {
	fmt.Fprintf(d.out, "%s %s\n", d.paint(color.Faint, node+"#"), command)
}

// reachDatabases measures what has become of the spec's policies.
func (d *demo) reachDatabases() error {
	f, err := findLabFile(lab.SpecDir)
	if err != nil {
		return err
	}
	if d.topology, d.spec, d.policies, err = d.loadLab(f); err != nil {
		return err
	}
	w, err := d.lab.Wire(d.spec.Network.Backend.Port)
	if err != nil {
		return err
	}
	var broken []string
	for _, f := range spec.Families {
		m, err := measure(d.lab, w, d.topology, d.spec, d.policies, f, []ask{database}, probeTimeout)
		if err != nil {
			return errors.Join(err, w.Close())
		}
		if f == spec.IPv4 {
			d.heading("Who reaches whom on %s, on the wire", database)
			if err := m.write(d.out, d.color(d.out)); err != nil {
				return errors.Join(err, w.Close())
			}
		}
		broken = append(broken, m.broken()...)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if len(broken) > 0 {
		return fmt.Errorf("not as the policies say:\n  %s", strings.Join(broken, "\n  "))
	}
	_, err = fmt.Fprint(d.out, "\n  The same over IPv6.\n")
	return err
}

// lie has a pod send a packet in the name of another one of its node, and shows
// that it is dropped and counted.
func (d *demo) lie(liar, victim, to string) error {
	e, v := d.endpoint(liar), d.endpoint(victim)
	d.heading("%s sends a packet to %s in the name of %s", liar, to, victim)
	before, err := d.caught(e.Node)
	if err != nil {
		return err
	}
	// Whatever MAC it is for: it does not get beyond the sender's port.
	frame := packet.Ethernet(e.MAC, v.MAC, packet.EtherIPv4, packet.NewUDP(
		netip.AddrPortFrom(v.Addresses[0], database.port),
		netip.AddrPortFrom(d.endpoint(to).Addresses[0], database.port), nil))
	if err := d.lab.Pod(liar).Inject("eth0", frame); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < probeTimeout; {
		after, err := d.caught(e.Node)
		if err != nil {
			return err
		}
		for reason, n := range after {
			if more := n.Packets - before[reason].Packets; more > 0 {
				_, err := fmt.Fprintf(d.out, "  %s\n", d.paint(color.FgGreen,
					fmt.Sprintf("dropped at its port on %s, and counted: %s %d", e.Node, reason, more)))
				return err
			}
		}
	}
	return fmt.Errorf("a packet of %s in the name of %s was not caught", liar, victim)
}

func (d *demo) endpoint(name string) *spec.Endpoint {
	return d.spec.Endpoints[slices.IndexFunc(d.spec.Endpoints, func(e *spec.Endpoint) bool { return e.Name == name })]
}

// caught is how many packets of each kind of lie a node has dropped.
func (d *demo) caught(node string) (counters map[string]nft.CounterValue, err error) {
	err = d.lab.Node(node).Do(func() error {
		r, err := nft.OpenReader()
		if err != nil {
			return err
		}
		counters, err = r.Counters(d.ctx, spoof.Table)
		return errors.Join(err, r.Close())
	})
	return counters, err
}

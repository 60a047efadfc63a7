package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/examples"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

func newLabDemoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Watch a small cluster's pod network come up",
		Long: `demo brings up a lab of three nodes with two pods each, a router and a host
outside. It shows a plan, applies it on every node, and sends packets from
every pod to every other and to the outside, in both families. The table says
which way they were seen to take on the wire. A second plan finds nothing to do.
A policy is added, and packets are sent again; a check keeps a mistake in it out,
and a pod that speaks in another's name is caught. Then three things are broken
by hand on a node where the daemon runs, which puts them back.

The exit status is 0 if everything was as the spec promises.`,
		Example: `  polder lab demo`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var failure error
			code, err := lab.Enter(func() int {
				failure = a.demo(cmd.Context())
				return 0
			})
			if err == nil && code != 0 {
				err = exitCode(code) // the demo ran in a process of its own
			}
			return errors.Join(err, failure)
		},
	}
}

// demo tells the story. It runs in the sandbox.
func (a *app) demo(ctx context.Context) error {
	began := time.Now()
	example, err := fs.Sub(examples.FS, examples.Demo)
	if err != nil {
		return err
	}
	// The sandbox's own /etc/polder, which all namespaces share.
	if err := os.CopyFS(lab.SpecDir, example); err != nil {
		return fmt.Errorf("laying out the spec: %w", err)
	}
	f, err := findLabFile(lab.SpecDir)
	if err != nil {
		return err
	}
	topology, s, policies, err := a.loadLab(f)
	if err != nil {
		return err
	}
	l, err := lab.Up(ctx, topology, s)
	if err != nil {
		return err
	}
	d := demo{app: a, ctx: ctx, lab: l, topology: topology, spec: s, policies: policies}
	err = errors.Join(d.tell(), l.Close())
	if err == nil {
		_, err = fmt.Fprintf(a.out, "\n%s\n", d.paint(color.FgGreen,
			fmt.Sprintf("Everything as promised, in %.1f seconds.", time.Since(began).Seconds())))
	}
	return err
}

// demo is the state of the story.
type demo struct {
	*app
	ctx      context.Context
	lab      *lab.Lab
	topology *lab.Topology
	spec     *spec.Spec
	policies *policy.Model
}

func (d *demo) tell() error {
	d.heading("A lab of network namespaces: %d nodes, %d pods, a router, a host outside",
		len(d.spec.Nodes), len(d.spec.Endpoints))
	if err := describeLab(d.out, d.topology, d.spec); err != nil {
		return err
	}
	first := d.spec.Nodes[0].Name
	d.heading("What polder would do on %s", first)
	if err := d.show(first, "plan"); err != nil {
		return err
	}
	d.heading("Apply on every node")
	for _, n := range d.spec.Nodes {
		if err := d.apply(n.Name); err != nil {
			return err
		}
	}
	if err := d.reach(); err != nil {
		return err
	}
	d.heading("A second plan on every node")
	for _, n := range d.spec.Nodes {
		if err := d.show(n.Name, "plan", "--detailed-exitcode"); err != nil {
			return err
		}
	}
	if err := d.isolate(); err != nil {
		return err
	}
	return d.repair(d.spec.Nodes[0])
}

func (d *demo) heading(format string, args ...any) {
	fmt.Fprintf(d.out, "\n%s\n\n", d.paint(color.Bold, fmt.Sprintf(format, args...)))
}

func (d *demo) paint(attribute color.Attribute, s string) string {
	c := color.New(attribute)
	if d.color(d.out) {
		c.EnableColor()
	} else {
		c.DisableColor()
	}
	return c.Sprint(s)
}

// command is this program, as the user of a node would call it.
func (d *demo) command(node string, args ...string) *lab.Cmd {
	if d.noColor {
		args = append(args, "--no-color")
	}
	return d.lab.Node(node).Command(d.ctx, append([]string{"polder"}, args...)...)
}

func (d *demo) prompt(node string, args ...string) {
	fmt.Fprintf(d.out, "%s polder %s\n", d.paint(color.Faint, node+"#"), strings.Join(args, " "))
}

// show runs a command on a node and lets the user see all of it.
func (d *demo) show(node string, args ...string) error { return d.exits(0, node, args...) }

// exits is show for a command that is to end with a status.
func (d *demo) exits(status int, node string, args ...string) error {
	d.prompt(node, args...)
	cmd := d.command(node, args...)
	cmd.Stdout, cmd.Stderr = d.out, d.out
	err := cmd.Run()
	switch {
	case cmd.ProcessState == nil || status == 0 && err != nil:
		return fmt.Errorf("polder %s on %s: %w", strings.Join(args, " "), node, err)
	case cmd.ProcessState.ExitCode() != status:
		return fmt.Errorf("polder %s on %s: status %d, and not %d", strings.Join(args, " "), node, cmd.ProcessState.ExitCode(), status)
	}
	return nil
}

// apply runs apply on a node and shows its verdict, or everything where it
// failed.
func (d *demo) apply(node string) error {
	args := []string{"apply", "--auto-approve"}
	d.prompt(node, args...)
	out, err := d.command(node, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("polder apply on %s: %w\n%s", node, err, out)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	_, err = fmt.Fprintf(d.out, "%s\n", lines[len(lines)-1])
	return err
}

// reach measures and shows who reaches whom.
func (d *demo) reach() error {
	// A CNI plugin would have made the pods' interfaces as large as the bridge.
	if err := d.lab.SyncPodMTU(); err != nil {
		return err
	}
	w, err := d.lab.Wire(d.spec.Network.Backend.Port)
	if err != nil {
		return err
	}
	var broken []string
	for _, r := range d.spec.Network.Pods {
		m, err := measure(d.lab, w, d.topology, d.spec, d.policies, r.Family(), demoAsks, probeTimeout)
		if err != nil {
			return errors.Join(err, w.Close())
		}
		d.heading("Who reaches whom over %s, by UDP and ping, and how it was seen to travel",
			map[spec.Family]string{spec.IPv4: "IPv4", spec.IPv6: "IPv6"}[r.Family()])
		if err := m.write(d.out, d.color(d.out)); err != nil {
			return errors.Join(err, w.Close())
		}
		broken = append(broken, m.broken()...)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if len(broken) > 0 {
		return fmt.Errorf("not as promised:\n  %s", strings.Join(broken, "\n  "))
	}
	_, err = fmt.Fprint(d.out, "\n  bridge  stayed on its node          direct  crossed the underlay as it is\n"+
		"  vxlan   crossed it inside of VXLAN  NAT     left with its node's address, as given\n"+
		"  All others arrived with the pod's own address.\n")
	return err
}

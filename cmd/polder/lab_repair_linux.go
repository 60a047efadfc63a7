package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/fatih/color"

	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

// repairTimeout is how long the demo waits for the daemon. A repair takes it
// milliseconds.
const repairTimeout = 10 * time.Second

// repair runs the daemon on a node, breaks three things there by hand, and shows
// how they come back.
func (d *demo) repair(node *spec.Node) error {
	d.heading("Three things are broken by hand on %s, where the daemon runs", node.Name)
	d.prompt(node.Name, "run", "&")
	k, err := d.keep(node.Name)
	if err != nil {
		return err
	}
	return errors.Join(d.breakAndMend(k, node), k.end())
}

func (d *demo) breakAndMend(k *keeper, node *spec.Node) error {
	if err := k.await(); err != nil {
		return err
	}
	machine := d.lab.Node(node.Name)
	far := d.spec.Nodes[len(d.spec.Nodes)-1].Subnets[0]
	vtep := fmt.Sprint("polder.", d.spec.Network.Backend.VNI)
	for _, broken := range []struct {
		command string // that would do it
		do      func() error
	}{
		{"ip route del " + far.String(), func() error { return machine.DeleteRoute(far) }},
		{"ip link del " + vtep, func() error { return machine.DeleteLink(vtep) }},
		{"nft flush ruleset", machine.FlushRuleset},
	} {
		fmt.Fprintf(d.out, "%s %s\n", d.paint(color.Faint, node.Name+"#"), broken.command)
		began := time.Now()
		if err := broken.do(); err != nil {
			return err
		}
		mended, err := d.mended(node.Name, began)
		if err != nil {
			return fmt.Errorf("after %s: %w", broken.command, err)
		}
		fmt.Fprintf(d.out, "  %s\n", d.paint(color.FgGreen, mended))
	}
	return d.show(node.Name, "status")
}

// mended waits until another process reads that the node is as it was, and says
// in a line what the daemon did for that since an instant, and how long it took.
func (d *demo) mended(node string, began time.Time) (string, error) {
	for {
		plan, differs := d.command(node, "plan", "--detailed-exitcode").CombinedOutput()
		out, err := d.command(node, "events", "--all", "--no-follow", "--json").Output()
		if err != nil {
			return "", err
		}
		changes, last, err := changesSince(out, began)
		switch {
		case err != nil:
			return "", err
		case differs == nil && changes != "":
			return fmt.Sprintf("put back after %.1f ms: %s", last.Sub(began).Seconds()*1000, changes), nil
		case time.Since(began) > repairTimeout:
			return "", fmt.Errorf("not put back in %v\n%s", repairTimeout, plan)
		}
	}
}

// changesSince counts the changes since an instant by kind, and says when the
// last of them was done.
func changesSince(events []byte, began time.Time) (summary string, last time.Time, err error) {
	var kinds []string
	counts := map[string]int{}
	for line := range bytes.Lines(events) {
		var e view.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return "", last, fmt.Errorf("reading events: %w", err)
		}
		many := e.Count
		if e.Event == reconcile.EventChanged {
			many = 1
		}
		if many == 0 || e.Time.Before(began) {
			continue
		}
		if counts[e.Change.Kind] == 0 {
			kinds = append(kinds, e.Change.Kind)
		}
		counts[e.Change.Kind] += many
		last = e.Time
	}
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%s %d", kind, counts[kind])
	}
	return strings.Join(kinds, ", "), last, nil
}

// keeper is a daemon in the demo, whose log is read.
type keeper struct {
	cmd   *lab.Cmd
	ready chan struct{} // closed when it says so
	ended chan struct{} // closed when its log has ended
}

// keep starts the daemon on a node.
func (d *demo) keep(node string) (*keeper, error) {
	k := &keeper{cmd: d.command(node, "run", "--log-format", "json"), ready: make(chan struct{}), ended: make(chan struct{})}
	log, err := k.cmd.StderrPipe()
	if err == nil {
		err = k.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the daemon on %s: %w", node, err)
	}
	go k.read(log)
	return k, nil
}

// read reads the log to its end, so that the daemon need not wait for a reader.
func (k *keeper) read(log io.Reader) {
	defer close(k.ended)
	for decoder := json.NewDecoder(log); ; {
		var line struct {
			Message string `json:"msg"`
		}
		if decoder.Decode(&line) != nil {
			return
		}
		if line.Message == "ready" {
			close(k.ready)
		}
	}
}

// await waits until the daemon is ready.
func (k *keeper) await() error {
	select {
	case <-k.ready:
		return nil
	case <-k.ended:
		return errors.New("the daemon has ended")
	case <-time.After(repairTimeout):
		return fmt.Errorf("the daemon is not ready after %v", repairTimeout)
	}
}

// end asks the daemon to end, and waits for that.
func (k *keeper) end() error {
	err := k.cmd.Process.Signal(syscall.SIGTERM)
	<-k.ended
	return errors.Join(err, k.cmd.Wait())
}

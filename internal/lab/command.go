package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

// Cmd is a process of a namespace. Its fields are those of exec.Cmd; only how
// it starts differs.
type Cmd struct {
	*exec.Cmd
	namespace *Namespace
}

// Command is a process in the namespace, with its hostname and its /run. The
// program is killed when the context ends.
func (n *Namespace) Command(ctx context.Context, argv ...string) *Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// Children of the process may hold its pipes open after it is killed.
	cmd.WaitDelay = 5 * time.Second
	return &Cmd{Cmd: cmd, namespace: n}
}

// Start is exec.Cmd.Start. The child is forked from a thread that has entered
// the namespace and so begins in it.
func (c *Cmd) Start() error {
	return c.namespace.Do(c.Cmd.Start)
}

// Run is exec.Cmd.Run.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is exec.Cmd.Output: what the process wrote to its standard output.
// On failure the error holds what it wrote to the other one.
func (c *Cmd) Output() ([]byte, error) {
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s in %s: %w\n%s", c.Args[0], c.namespace.Name(), err, errs.Bytes())
	}
	return out.Bytes(), nil
}

// CombinedOutput is exec.Cmd.CombinedOutput: everything that the process wrote.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

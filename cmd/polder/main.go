// Command polder makes a Linux node's network match a declarative spec: it
// reads the spec and the kernel, prints the difference, and writes it.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// gcPercent lets the heap grow to five times what is in use before it is swept:
// a plan for 5,000 nodes is over before that pays, and a third of its CPU time
// went there.
const gcPercent = 400

func main() {
	debug.SetGCPercent(gcPercent)
	os.Exit(mainCode())
}

// mainCode is main with its exit status, so that deferred calls run.
func mainCode() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end between two objects; a second
	// one ends the process at once.
	context.AfterFunc(ctx, stop)
	if asPlugin() {
		return pluginMain(ctx)
	}
	return run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Environ())
}

//go:build !linux

package main

import (
	"errors"
	"runtime"

	"github.com/spf13/cobra"
)

// newLabCommand stands for the command that other systems cannot have.
func newLabCommand(*app) *cobra.Command {
	return &cobra.Command{
		Use:     "lab",
		Short:   "Try a spec in network namespaces (Linux only)",
		Example: "  polder lab demo",
		RunE: func(*cobra.Command, []string) error {
			return errors.New("a lab is made of network namespaces, which exist on Linux only; this is " + runtime.GOOS)
		},
	}
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/poldernet/polder/cmd/polder/internal/conflist"
)

func newInstallCNICommand(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "install-cni",
		Short: "Copy this binary to where container runtimes look for CNI plugins",
		Long: `install-cni copies the binary that runs it to the file "polder" in a directory of
CNI plugins. An init container does that: polder's image has no shell and no cp.
A runtime that calls the plugin meanwhile gets the old one or the new one, whole.`,
		Example: `  polder install-cni --dir /opt/cni/bin`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			to, err := conflist.Install(dir)
			if err != nil {
				return fmt.Errorf("installing the CNI plugin: %w", err)
			}
			_, err = fmt.Fprintf(a.out, "%s is polder %s.\n", to, readVersion().Version)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "/opt/cni/bin", "`DIR` of CNI plugins, which has to exist")
	return cmd
}

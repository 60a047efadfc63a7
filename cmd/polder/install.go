package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
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
			to := filepath.Join(dir, "polder")
			if err := installSelf(to); err != nil {
				return fmt.Errorf("installing the CNI plugin: %w", err)
			}
			_, err := fmt.Fprintf(a.out, "%s is polder %s.\n", to, readVersion().Version)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "/opt/cni/bin", "`DIR` of CNI plugins, which has to exist")
	return cmd
}

// installSelf makes a file a copy of this program. The file is replaced, not
// written to: a program that runs cannot be written to (ETXTBSY), and one that is
// half written must not be run.
func installSelf(to string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer closing(from, &err)
	// Of one name: what a run leaves that was killed, the next one takes away.
	next := filepath.Join(filepath.Dir(to), "."+filepath.Base(to)+".new")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeProgram(next, from); err != nil {
		return err
	}
	return os.Rename(next, to)
}

// writeProgram writes a new file that all may run, whatever the umask is.
func writeProgram(path string, content io.Reader) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	defer closing(f, &err)
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := f.Chmod(0o755); err != nil {
		return err
	}
	// Or the name could be on the disk before the content is, at a power cut.
	return f.Sync()
}

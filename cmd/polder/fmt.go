package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/poldernet/polder/spec"
)

func newFmtCommand(a *app) *cobra.Command {
	var f formatter
	cmd := &cobra.Command{
		Use:   "fmt [PATH...]",
		Short: "Rewrite spec files in the one layout",
		Long: `fmt rewrites files in HCL's native syntax in the one layout and lists those that
it changed. PATH is a file, a folder, of which all *.hcl files are taken, or "-"
for standard input to standard output; without it, the path of --spec. Comments
stay.

With --check nothing is written, and the exit status is 2 if a file would be.`,
		Example: `  polder fmt
  polder fmt --check --diff examples/dual-stack
  polder fmt - < edge.hcl`,
		RunE: func(_ *cobra.Command, paths []string) error {
			f.app = a
			if len(paths) == 0 {
				paths = []string{a.specPath}
			}
			for _, path := range paths {
				if err := f.path(path); err != nil {
					return err
				}
			}
			switch {
			case f.broken:
				return exitError
			case f.check && f.changed:
				return exitChanges
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&f.check, "check", false, "write nothing; exit 2 if a file would change")
	cmd.Flags().BoolVar(&f.diff, "diff", false, "print what changes")
	return cmd
}

// formatter formats one file after another.
type formatter struct {
	*app
	check, diff     bool
	changed, broken bool
}

// path formats a file, a folder or standard input.
func (f *formatter) path(path string) error {
	if path == "-" {
		return f.stdin()
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("formatting: %w", err)
	}
	if !info.IsDir() {
		return f.file(path)
	}
	// Lab files, too: they are not part of the spec, but lie beside it.
	files, err := filepath.Glob(filepath.Join(path, "*.hcl"))
	if err != nil {
		return fmt.Errorf("listing %s: %w", path, err)
	}
	for _, file := range files {
		if err := f.file(file); err != nil {
			return err
		}
	}
	return nil
}

func (f *formatter) stdin() error {
	src, err := io.ReadAll(f.in)
	if err != nil {
		return fmt.Errorf("reading standard input: %w", err)
	}
	formatted, ok, err := f.format("<stdin>", src)
	if err != nil || !ok {
		return err
	}
	f.changed = f.changed || !bytes.Equal(src, formatted)
	switch {
	case f.diff:
		_, err = f.out.Write(diff.Diff("<stdin>", src, "<stdin> formatted", formatted))
	case !f.check:
		_, err = f.out.Write(formatted)
	}
	return err
}

func (f *formatter) file(path string) error {
	if strings.HasSuffix(path, ".json") {
		return fmt.Errorf("formatting %s: only files in HCL's native syntax are formatted", path)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("formatting: %w", err)
	}
	formatted, ok, err := f.format(path, src)
	if err != nil || !ok || bytes.Equal(src, formatted) {
		return err
	}
	f.changed = true
	if _, err := fmt.Fprintln(f.out, path); err != nil {
		return err
	}
	if f.diff {
		if _, err := f.out.Write(diff.Diff(path, src, path+" formatted", formatted)); err != nil {
			return err
		}
	}
	if f.check {
		return nil
	}
	return spec.WriteFile(path, formatted)
}

// format returns the formatted source. ok is false where src does not parse,
// which is then printed and does not keep other files from being formatted.
func (f *formatter) format(name string, src []byte) (formatted []byte, ok bool, err error) {
	formatted, config, diags := spec.Format(name, src)
	if diags.HasErrors() {
		f.broken = true
		return nil, false, f.printDiagnostics(config, diags)
	}
	return formatted, true, nil
}

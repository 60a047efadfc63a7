package spec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format brings a file in HCL's native syntax into its canonical layout.
// Comments stay. The Config is for WriteDiagnostics.
func Format(name string, src []byte) ([]byte, *Config, hcl.Diagnostics) {
	c := &Config{path: name, reader: newReader(), files: map[string]*hcl.File{name: {Bytes: src}}}
	if strings.HasSuffix(name, ".json") {
		return nil, c, failed("Not formatted", fmt.Errorf("%s is JSON, and the layout is that of HCL's native syntax", name))
	}
	file, diags := source{name, src}.parse()
	if diags.HasErrors() {
		return nil, c, diags
	}
	c.files[name] = file
	formatted, ok := format(src)
	if !ok {
		return nil, c, failed("Not formatted", fmt.Errorf("%s has an expression that would mean something else in the canonical layout", name))
	}
	return formatted, c, diags
}

// format is the canonical layout, or false where it would not consist of the
// same tokens: hclwrite makes 1.5.0 of "1.5. 0", an index of a number.
func format(src []byte) ([]byte, bool) {
	out := hclwrite.Format(src)
	before, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	after, _ := hclsyntax.LexConfig(out, "", hcl.InitialPos)
	same := slices.EqualFunc(before, after, func(a, b hclsyntax.Token) bool {
		return a.Type == b.Type && bytes.Equal(a.Bytes, b.Bytes)
	})
	return out, same
}

// Write writes the edited files. It refuses a file that has changed since it
// was read.
func (e *Edit) Write() error {
	for _, f := range e.changed {
		now, err := readRegular(f.name)
		if err != nil {
			return fmt.Errorf("editing the spec: %w", err)
		}
		if !bytes.Equal(now, f.before) {
			return fmt.Errorf("editing the spec: %s was changed by somebody else meanwhile; nothing is written to it", f.name)
		}
		if err := WriteFile(f.name, f.after); err != nil {
			return fmt.Errorf("editing the spec: %w", err)
		}
	}
	return nil
}

// WriteFile replaces the content of a file that exists, whole or not at all.
// Its mode stays, and a symbolic link keeps pointing to it.
func WriteFile(name string, content []byte) (err error) {
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	// Hidden, so that nobody takes a half-written file for a part of the spec.
	temp, err := os.CreateTemp(filepath.Dir(name), ".polder-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", temp.Name(), err)
	}
	// rename(2) replaces at once: a reader sees the old file or the new one.
	return os.Rename(temp.Name(), name)
}

package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
)

// source is one file of a spec.
type source struct {
	name string // path, as messages show it
	text []byte
}

func (s source) isJSON() bool { return strings.HasSuffix(s.name, ".json") }

// parse reads the file's syntax. With errors the file may still have a part
// that could be read.
func (s source) parse() (*hcl.File, hcl.Diagnostics) {
	if s.isJSON() {
		if deep := tooDeepJSON(s); deep != nil {
			return nil, hcl.Diagnostics{deep}
		}
		return json.Parse(s.text, s.name)
	}
	// What the lexer has to say, the parser says again.
	tokens, _ := hclsyntax.LexConfig(s.text, s.name, hcl.InitialPos)
	if deep := tooDeep(tokens); deep != nil {
		return nil, hcl.Diagnostics{deep}
	}
	return hclsyntax.ParseConfig(s.text, s.name, hcl.InitialPos)
}

// reader reads the files of a spec, each once, and keeps what it found: one
// Config is made of one content of each file, and can be made again.
type reader struct {
	contents map[string]content // by name
	closed   bool               // there are no other files than these
}

type content struct {
	text []byte
	err  error
}

func newReader() *reader { return &reader{contents: make(map[string]content)} }

// read reads a file, or says again what it has read.
func (r *reader) read(name string) ([]byte, error) {
	c, known := r.contents[name]
	switch {
	case known:
	case r.closed:
		c.err = &fs.PathError{Op: "read", Path: name, Err: errors.New("not in the snapshot")}
	default:
		c.text, c.err = readRegular(name)
	}
	r.contents[name] = c
	return c.text, c.err
}

// readSources reads the file, or the files of the folder in the order of
// their names.
func (r *reader) readSources(path string) ([]source, hcl.Diagnostics) {
	names, err := sourceNames(path)
	if err != nil {
		return nil, failed("Spec not readable", err)
	}
	var sources []source
	var diags hcl.Diagnostics
	for _, name := range names {
		text, err := r.read(name)
		if err != nil {
			diags = append(diags, failed("Spec not readable", err)...)
			continue
		}
		sources = append(sources, source{name, text})
	}
	return sources, diags
}

// sourceNames are the files that a path stands for.
func sourceNames(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		// ReadDir sorts. Where two files set the same, the message is always
		// about the second.
		if IsSpecFile(entry.Name()) {
			names = append(names, filepath.Join(path, entry.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the folder %s holds no *.hcl and no *.hcl.json file", path)
	}
	return names, nil
}

// IsSpecFile says whether a file of that name, in the folder of a spec, is part
// of it. Files named *.lab.hcl describe a lab, and editors keep hidden files
// beside those that they edit.
func IsSpecFile(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	base, ok := strings.CutSuffix(strings.TrimSuffix(name, ".json"), ".hcl")
	return ok && !strings.HasSuffix(base, ".lab")
}

// readRegular reads a file, but no pipe or device, which may have no end.
func readRegular(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	return os.ReadFile(name)
}

// failed is an error that has no place in a file.
func failed(summary string, err error) hcl.Diagnostics {
	text := err.Error()
	if in := (*fs.PathError)(nil); errors.As(err, &in) {
		text = in.Path + ": " + in.Err.Error()
	}
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: text + "."}}
}

package spec

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
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
	file, diags := hclsyntax.ParseConfig(s.text, s.name, hcl.InitialPos)
	if body, ok := file.Body.(*hclsyntax.Body); ok {
		diags = append(diags, doubledKeys(body)...)
	}
	return file, diags
}

// doubledKeys are errors about keys that an object has twice: HCL takes the last,
// and who wrote the others would look for their effect in vain.
func doubledKeys(body *hclsyntax.Body) hcl.Diagnostics {
	diags := hclsyntax.VisitAll(body, func(node hclsyntax.Node) hcl.Diagnostics {
		object, ok := node.(*hclsyntax.ObjectConsExpr)
		if !ok {
			return nil
		}
		var diags hcl.Diagnostics
		first := map[string]hcl.Range{}
		for _, item := range object.Items {
			key, computed := item.KeyExpr.Value(nil)
			if computed.HasErrors() || !key.IsKnown() || key.IsNull() || key.Type() != cty.String {
				continue
			}
			name := key.AsString()
			if at, twice := first[name]; twice {
				diags = append(diags, &hcl.Diagnostic{
					Severity: hcl.DiagError,
					Summary:  "Key given twice",
					Detail:   fmt.Sprintf("This object has %q in line %d already, and only one of them could count. Leave one out.", name, at.Start.Line),
					Subject:  item.KeyExpr.Range().Ptr(),
				})
				continue
			}
			first[name] = item.KeyExpr.Range()
		}
		return diags
	})
	// Attributes are visited in no order.
	slices.SortFunc(diags, func(a, b *hcl.Diagnostic) int { return cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte) })
	return diags
}

// reader reads the files of a spec, each once, and keeps what it found: one
// Config is made of one content of each file, and can be made again.
type reader struct {
	contents map[string]content // by name
	listings map[string]listing // by pattern
	closed   bool               // there are no other files than these
}

type content struct {
	text []byte
	err  error
}

// listing is the names of the files that a pattern stands for.
type listing struct {
	names []string
	err   error
}

func newReader() *reader {
	return &reader{contents: make(map[string]content), listings: make(map[string]listing)}
}

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

// list is the names of the files in a folder whose last part matches that of a
// pattern, in order. Hidden files do not, as in a shell.
func (r *reader) list(pattern string) ([]string, error) {
	l, known := r.listings[pattern]
	switch {
	case known:
	case r.closed:
		l.err = &fs.PathError{Op: "list", Path: pattern, Err: errors.New("not in the snapshot")}
	default:
		l.names, l.err = match(pattern)
	}
	r.listings[pattern] = l
	return l.names, l.err
}

func match(pattern string) ([]string, error) {
	folder, last := filepath.Split(pattern)
	entries, err := os.ReadDir(filepath.Clean(folder))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		ok, err := filepath.Match(last, entry.Name())
		if err != nil {
			return nil, &fs.PathError{Op: "list", Path: pattern, Err: err}
		}
		if ok && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, filepath.Join(folder, entry.Name()))
		}
	}
	return names, nil
}

// folders are those in which files were looked for.
func (r *reader) folders() []string {
	var out []string
	for pattern := range r.listings {
		out = append(out, filepath.Dir(pattern))
	}
	return out
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
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: fileError(err) + "."}}
}

// fileError is an error's text, without what was tried with a file.
func fileError(err error) string {
	if in := (*fs.PathError)(nil); errors.As(err, &in) {
		return in.Path + ": " + in.Err.Error()
	}
	return err.Error()
}

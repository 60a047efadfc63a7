package spec

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// Config is a spec with the files that it was read from.
type Config struct {
	// Spec is nil where the files have errors.
	Spec *Spec

	path    string // that the user gave
	inputs  Inputs
	sources []source
	reader  *reader
	files   map[string]*hcl.File // by name, for messages
	decl    *declarations
}

// Load reads the spec at path: one file in HCL or, where its name ends in
// .json, in HCL's JSON form; or a folder, of which all *.hcl and *.hcl.json
// files but *.lab.hcl are read as if they were one.
//
// All mistakes are reported at once. The Config is never nil, so that its
// WriteDiagnostics can show them; its Spec is nil if there are errors.
func Load(path string, in Inputs) (*Config, hcl.Diagnostics) {
	r := newReader()
	sources, diags := r.readSources(path)
	if diags.HasErrors() {
		return &Config{path: path, reader: r}, diags
	}
	return build(path, in, sources, r, demandSubnets)
}

// LoadText is Load for a text that is in no file yet. It reads no other file either.
func LoadText(name string, text []byte) (*Config, hcl.Diagnostics) {
	r := newReader()
	r.closed = true
	return build(name, Inputs{}, []source{{name, text}}, r, demandSubnets)
}

// Path is what Load was given.
func (c *Config) Path() string { return c.path }

// Files are the names of the files that the Config was made of, in order:
// those of the spec, of variables, of the function file(), and of Kubernetes
// objects. Among them are files that could not be read, since the spec may be
// another when they can; and folders of which the files that match a pattern
// were read. A folder that is the spec is to be watched beside them, because
// files may be added to it. Of the files in folders, IsInput says which count.
func (c *Config) Files() []string {
	return slices.Compact(slices.Sorted(slices.Values(append(c.reader.folders(), slices.Collect(maps.Keys(c.reader.contents))...))))
}

// IsInput says whether a file of that name, in a folder of a spec or of
// Config.Files, may change the spec by being there.
func IsInput(name string) bool { return IsSpecFile(name) || isManifestFile(name) }

// strictness says what to make of nodes without subnets.
type strictness bool

const (
	demandSubnets strictness = true
	subnetsToCome strictness = false // an edit is about to assign them
)

// build makes a Config of sources, and of the files that r reads for them.
func build(path string, in Inputs, sources []source, r *reader, strict strictness) (*Config, hcl.Diagnostics) {
	c := &Config{path: path, inputs: in, sources: sources, reader: r, files: make(map[string]*hcl.File)}
	var bodies []hcl.Body
	var diags hcl.Diagnostics
	for _, src := range sources {
		file, more := src.parse()
		diags = append(diags, more...)
		if file == nil || file.Body == nil {
			file = &hcl.File{Body: hcl.EmptyBody()}
		}
		file.Bytes = src.text
		c.files[src.name] = file
		bodies = append(bodies, file.Body)
	}
	if diags.HasErrors() {
		// What follows a syntax error is read wrongly, or not at all.
		return c, diags
	}
	// Functions take relative names from the spec's folder, wherever the
	// command runs.
	base := path
	if len(sources) == 1 && sources[0].name == path {
		base = filepath.Dir(path)
	}
	d := &decoder{path: path, base: base, reader: r, files: c.files}
	c.decl = d.decode(hcl.MergeBodies(bodies), in)
	d.validate(c.decl, strict)
	if !d.diags.HasErrors() {
		c.Spec = c.decl.spec()
	}
	return c, tidy(d.diags)
}

// tidy orders diagnostics by place in the files, those without one first, and
// drops repetitions: what for_each makes many instances of may be wrong in the
// same way in each.
func tidy(diags hcl.Diagnostics) hcl.Diagnostics {
	at := func(d *hcl.Diagnostic) hcl.Range {
		if d.Subject == nil {
			return hcl.Range{}
		}
		return *d.Subject
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(
			cmp.Compare(at(a).Filename, at(b).Filename),
			cmp.Compare(at(a).Start.Byte, at(b).Start.Byte),
		)
	})
	type said struct {
		at              hcl.Range
		summary, detail string
	}
	seen := make(map[said]bool, len(diags))
	return slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool {
		key := said{at(d), d.Summary, d.Detail}
		repeated := seen[key]
		seen[key] = true
		return repeated
	})
}

// CheckNode says whether the spec has a node of that name, and if not, what
// may have been meant. Where nodes may be Kubernetes' alone, it cannot say.
func (c *Config) CheckNode(name string) hcl.Diagnostics {
	if c.Spec == nil || c.Spec.Node(name) != nil || c.Spec.NodesBeside() {
		return nil
	}
	names := make([]string, len(c.Spec.Nodes))
	for i, n := range c.Spec.Nodes {
		names[i] = n.Name
	}
	return c.noSuchNode(name, names)
}

func (c *Config) noSuchNode(name string, names []string) hcl.Diagnostics {
	detail := fmt.Sprintf("The spec at %s has no node %q.", c.path, name)
	if len(names) > 0 {
		detail += fmt.Sprintf("%s Its nodes are %s.", didYouMean(name, names), enumerate(names))
	}
	detail += fmt.Sprintf(" To add it:\n\n  polder node add %s --address ADDRESS --spec %s", shellQuote(name), shellQuote(c.path))
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No such node", Detail: detail}}
}

const digits = "0123456789"

// Nearest is the candidate that a name is likely a slip of, or "".
func Nearest(name string, candidates []string) string {
	best, least := "", 3 // as in HCL's own suggestions
	for _, c := range candidates {
		if strings.TrimRight(c, digits) == strings.TrimRight(name, digits) {
			continue // n1 is no slip of n2
		}
		if d := levenshtein.Distance(name, c, nil); d < least && d < len(name) {
			best, least = c, d
		}
	}
	return best
}

// didYouMean is a sentence to append to a message, or "".
func didYouMean(name string, candidates []string) string {
	if near := Nearest(name, candidates); near != "" {
		return fmt.Sprintf(" Did you mean %q?", near)
	}
	return ""
}

// enumerate lists names, the first few of many.
func enumerate(names []string) string {
	const most = 5
	switch n := len(names); {
	case n == 0:
		return ""
	case n == 1:
		return names[0]
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// alternatives lists what one may choose from.
func alternatives(list []string) string {
	switch n := len(list); n {
	case 0:
		return ""
	case 1:
		return list[0]
	case 2:
		return "either " + list[0] + " or " + list[1]
	default:
		return "one of " + strings.Join(list[:n-1], ", ") + " and " + list[n-1]
	}
}

// texts are words as strings.
func texts[T ~string](words []T) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}

// shellQuote quotes an argument of a command that a message shows.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-+:@%,=", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

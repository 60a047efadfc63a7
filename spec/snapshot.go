package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// snapshotVersion changes when an older polder would read a snapshot wrongly.
const snapshotVersion = "1.0"

// snapshot is the JSON form of what a Config was made of.
type snapshot struct {
	FormatVersion string            `json:"format_version"`
	Path          string            `json:"path"`
	Sources       []string          `json:"sources"`
	Environ       []string          `json:"environ,omitempty"` // what may set a variable
	VarFiles      []string          `json:"var_files,omitempty"`
	Vars          []string          `json:"vars,omitempty"`
	Files         map[string][]byte `json:"files"` // by name
	// Listings are the names of files, by the pattern that they match.
	Listings map[string][]string `json:"listings,omitempty"`
}

// Snapshot is all that the spec was made of, in a form for Restore: the
// contents of its files and the values given for its variables, which may be
// secrets. It fails for a Config with errors.
func (c *Config) Snapshot() ([]byte, error) {
	if c.Spec == nil {
		return nil, errors.New("taking a snapshot of the spec: it has errors")
	}
	s := snapshot{
		FormatVersion: snapshotVersion,
		Path:          c.path,
		VarFiles:      c.inputs.VarFiles,
		Vars:          c.inputs.Vars,
		Files:         make(map[string][]byte),
	}
	for _, entry := range c.inputs.Environ {
		if strings.HasPrefix(entry, envPrefix) {
			s.Environ = append(s.Environ, entry)
		}
	}
	for name, content := range c.reader.contents {
		if content.err == nil {
			s.Files[name] = content.text
		}
	}
	for pattern, l := range c.reader.listings {
		if s.Listings == nil {
			s.Listings = make(map[string][]string)
		}
		s.Listings[pattern] = l.names // a folder that could not be listed is an error
	}
	for _, src := range c.sources {
		s.Sources = append(s.Sources, src.name)
		s.Files[src.name] = src.text // edited, perhaps
	}
	// JSON has no other text, and would change it silently.
	for _, text := range slices.Concat([]string{s.Path}, s.Environ, s.VarFiles, s.Vars, slices.Collect(maps.Keys(s.Files)), slices.Collect(maps.Keys(s.Listings))) {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("taking a snapshot of the spec: %q is not UTF-8 text", text)
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("taking a snapshot of the spec: %w", err)
	}
	return b, nil
}

// Restore makes the Config again that Snapshot was called for, without looking
// at any file: they may have changed, or have errors now. As with Load, the
// Config is never nil, and its Spec is if there are errors: the snapshot may be
// damaged, or this polder may find fault with what another one took.
func Restore(b []byte) (*Config, hcl.Diagnostics) {
	s, err := decodeSnapshot(b)
	if err != nil {
		return &Config{reader: newReader()}, failed("Snapshot not readable", err)
	}
	r := newReader()
	r.closed = true
	for pattern, names := range s.Listings {
		r.listings[pattern] = listing{names: names}
	}
	for name, text := range s.Files {
		r.contents[name] = content{text: text}
	}
	var sources []source
	for _, name := range s.Sources {
		sources = append(sources, source{name, s.Files[name]})
	}
	return build(s.Path, Inputs{Environ: s.Environ, VarFiles: s.VarFiles, Vars: s.Vars}, sources, r, demandSubnets)
}

// decodeSnapshot decodes a snapshot of this version.
func decodeSnapshot(b []byte) (snapshot, error) {
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("it is damaged: %w", err)
	}
	if s.FormatVersion != snapshotVersion {
		return s, fmt.Errorf("it has the format version %q, and this polder reads %q", s.FormatVersion, snapshotVersion)
	}
	for _, name := range s.Sources {
		if _, ok := s.Files[name]; !ok {
			return s, fmt.Errorf("it is damaged: the file %s is missing", name)
		}
	}
	if s.Path == "" || len(s.Sources) == 0 {
		return s, errors.New("it is damaged: it names no file of the spec")
	}
	return s, nil
}

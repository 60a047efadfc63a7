package spec

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// manifests reads the files of Kubernetes objects that the spec names, each
// once.
func (s *section) manifests() []*Manifest {
	const summary = "Kubernetes manifest not readable"
	var out []*Manifest
	seen := make(map[string]bool)
	list, _, _ := s.strings("kubernetes_manifests")
	for _, v := range list {
		name := v.AsString()
		if !isManifestFile(filepath.Base(name)) {
			s.report(v.problem(summary, "%q is no name of a manifest: it ends in none of .yaml, .yml and .json, or is hidden.", name))
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(s.base, name)
		}
		names := []string{name}
		if isPattern(v.AsString()) {
			if isPattern(filepath.Dir(v.AsString())) {
				s.report(v.problem(summary, "%q has a pattern in the name of a folder. Only the last part can be one; name each folder.", v.AsString()))
				continue
			}
			var err error
			if names, err = s.reader.list(name); err != nil {
				s.report(v.problem(summary, "%s.", fileError(err)))
				continue
			}
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			text, err := s.reader.read(name)
			if err != nil {
				s.report(v.problem(summary, "%s.", fileError(err)))
				continue
			}
			out = append(out, &Manifest{name, text})
			if s.files[name] == nil {
				s.files[name] = &hcl.File{Bytes: text} // for messages about it
			}
		}
	}
	return out
}

// isPattern says whether a name has characters that filepath.Match takes for
// more than themselves.
func isPattern(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// isManifestFile says whether a file of that name can be a manifest that a spec
// reads. Editors keep hidden files beside those that they edit.
func isManifestFile(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

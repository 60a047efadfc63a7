package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kubeyaml "sigs.k8s.io/yaml"
)

// maxAliased bounds what aliases of a file stand for: ten lines of YAML can
// mean a billion nodes.
const maxAliased = 100_000

// reader fills Go values from YAML as the API server's strict decoding does
// from JSON, but knows where everything stood and reports all mistakes.
type reader struct {
	*document
	diags   hcl.Diagnostics
	places  map[string]hcl.Range // of fields, by path
	aliased *int                 // nodes read by way of aliases
	inAlias int
}

// mistake is an error at a place of the file.
func (s *source) mistake(summary string, at hcl.Range, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &at}
}

func (r *reader) fail(summary string, at hcl.Range, path *field.Path, format string, args ...any) {
	r.diags = append(r.diags, r.mistake(summary, at, "%s", said(path)+fmt.Sprintf(format, args...)))
}

func (r *reader) warn(summary string, at hcl.Range, path *field.Path, format string, args ...any) {
	r.fail(summary, at, path, format, args...)
	r.diags[len(r.diags)-1].Severity = hcl.DiagWarning
}

// said is the path of a field in front of what is said about it.
func said(path *field.Path) string {
	if path == nil {
		return ""
	}
	return path.String() + ": "
}

// at is the place of a field or, where it is left out, of what it would be in.
func (r *reader) at(path *field.Path) hcl.Range { return r.placeOf(path.String()) }

func (r *reader) placeOf(path string) hcl.Range {
	for path != "" {
		if at, ok := r.places[path]; ok {
			return at
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return r.places[""]
}

// member is the key of an element of a map of strings, or its value, in
// places. What is wrong with either is reported of the map.
func member(path, text string) string { return path + "\x00" + text }

var (
	nodeType   = reflect.TypeFor[*yaml.Node]()
	fieldsType = reflect.TypeFor[metav1.FieldsV1]()
	jsonType   = reflect.TypeFor[json.Unmarshaler]()
)

// value fills v. Null leaves it as it is, which is what JSON's decoder does.
func (r *reader) value(v reflect.Value, n *yaml.Node, path *field.Path) {
	if v.Type() == nodeType {
		v.Set(reflect.ValueOf(n))
		return
	}
	if n.Kind == yaml.AliasNode {
		r.inAlias++
		defer func() { r.inAlias-- }()
		n = n.Alias
	}
	if !r.afford(n) || !r.untagged(n, path) || isNull(n) {
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(v.Elem(), n, path)
	case v.Type() == fieldsType:
		// Who manages which fields is nothing to policies.
		r.is(n, yaml.MappingNode, "a map", path)
	case v.Addr().Type().Implements(jsonType):
		r.unmarshal(v, n, path)
	case v.Kind() == reflect.Struct:
		if r.is(n, yaml.MappingNode, "a map", path) {
			r.fields(v, n, path)
		}
	case v.Kind() == reflect.Map:
		if r.is(n, yaml.MappingNode, "a map", path) {
			r.strings(v, n, path)
		}
	case v.Kind() == reflect.Slice:
		if r.is(n, yaml.SequenceNode, "a list", path) {
			r.list(v, n, path)
		}
	default:
		r.unmarshal(v, n, path)
	}
}

// afford counts what was reached by an alias, by what it costs.
func (r *reader) afford(n *yaml.Node) bool {
	before := *r.aliased
	if r.inAlias > 0 {
		*r.aliased += 1 + len(n.Content) + len(n.Value)/16
	}
	if *r.aliased < maxAliased {
		return true
	}
	if before < maxAliased {
		r.fail("Too many aliases", r.place(n), nil, "The aliases of this file stand for more than %d values. Write them out, or fewer of them.", maxAliased)
	}
	return false
}

// untagged refuses tags other than that of strings, rather than to misread what
// they are on.
func (r *reader) untagged(n *yaml.Node, path *field.Path) bool {
	if n.Style&yaml.TaggedStyle == 0 || n.ShortTag() == "!!str" {
		return true
	}
	r.fail("Unsupported tag", r.place(n), path, "the tag %s is not read here. Leave it out.", n.Tag)
	return false
}

// is says that a node is of a kind, and complains if not.
func (r *reader) is(n *yaml.Node, kind yaml.Kind, wanted string, path *field.Path) bool {
	if n.Kind == kind {
		return true
	}
	r.fail("Wrong type", r.place(n), path, "%s is wanted here, and this is %s.", wanted, kindOf(n))
	return false
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	default:
		return "a single value"
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// scalar is the JSON that a scalar means to Kubernetes, which reads YAML 1.1:
// yes is true, and 010 is eight.
func (s *source) scalar(n *yaml.Node) string {
	quoted := n.Style&^yaml.TaggedStyle&^yaml.FlowStyle != 0
	if quoted || n.Style&yaml.TaggedStyle != 0 && n.ShortTag() == "!!str" {
		return jsonString(n.Value)
	}
	if word, ok := s.words[n.Value]; ok {
		return word
	}
	// In a map, where "--- 5" begins no document.
	out, err := kubeyaml.YAMLToJSON([]byte("x: " + n.Value))
	word := strings.TrimSuffix(strings.TrimPrefix(string(bytes.TrimSpace(out)), `{"x":`), "}")
	if err != nil || word == "" || strings.ContainsAny(word[:1], `"{[`) {
		word = jsonString(n.Value)
	}
	s.words[n.Value] = word
	return word
}

func jsonString(s string) string {
	out, err := json.Marshal(s)
	if err != nil {
		return `""` // strings have no errors
	}
	return string(out)
}

// unmarshal fills v from a scalar by way of JSON.
func (r *reader) unmarshal(v reflect.Value, n *yaml.Node, path *field.Path) {
	if n.Kind != yaml.ScalarNode {
		r.fail("Wrong type", r.place(n), path, "%s is wanted here, and this is %s.", wanted(v), kindOf(n))
		return
	}
	text := r.scalar(n)
	if json.Unmarshal([]byte(text), v.Addr().Interface()) == nil {
		return
	}
	is := "this is " + text
	if text != n.Value && text[0] != '"' {
		is = fmt.Sprintf("%s is %s in YAML", n.Value, text)
	}
	switch {
	case text[0] == '"' && json.Unmarshal([]byte(n.Value), v.Addr().Interface()) == nil:
		is += fmt.Sprintf(": write %s, without quotes", n.Value)
	case v.Kind() == reflect.String:
		is += fmt.Sprintf(": write %q, in quotes", n.Value)
	}
	r.fail("Wrong type", r.place(n), path, "%s is wanted here, and %s.", wanted(v), is)
}

// wanted says what a scalar of a type is.
func wanted(v reflect.Value) string {
	switch {
	case v.Type() == reflect.TypeFor[metav1.Time]():
		return "a time as in \"2006-01-02T15:04:05Z\""
	case v.Kind() == reflect.Struct:
		return "a port number of 32 bits or a name"
	case v.Kind() == reflect.String:
		return "a string"
	case v.Kind() == reflect.Bool:
		return "true or false"
	default:
		return fmt.Sprintf("a whole number of %d bits", v.Type().Bits())
	}
}

// entry is a key of a map with its value.
type entry struct{ key, value *yaml.Node }

// entries are a map's, also those that it merges from others. A key that the
// map has itself, or an earlier one of the others, goes first.
func (r *reader) entries(n *yaml.Node) []entry {
	var own, merged []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!merge" {
			own = append(own, entry{key, value})
			continue
		}
		from := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			from = value.Content
		}
		for _, m := range from {
			r.inAlias++
			if m.Kind == yaml.AliasNode {
				m = m.Alias
			}
			if r.afford(m) && r.is(m, yaml.MappingNode, "a map to merge", nil) {
				merged = append(merged, r.entries(m)...)
			}
			r.inAlias--
		}
	}
	if len(merged) == 0 {
		return own
	}
	has := make(map[string]bool)
	for _, e := range own {
		has[e.key.Value] = true
	}
	for _, e := range merged {
		if !has[e.key.Value] {
			has[e.key.Value] = true
			own = append(own, e)
		}
	}
	return own
}

// each calls f for the entries of a map, without duplicates.
func (r *reader) each(n *yaml.Node, path *field.Path, f func(key string, e entry)) {
	seen := make(map[string]hcl.Range)
	for _, e := range r.entries(n) {
		key := e.key
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		at := r.place(e.key)
		if !r.untagged(key, path) {
			continue
		}
		if key.Kind != yaml.ScalarNode {
			r.fail("Wrong type", at, path, "a key is a string, and this is %s.", kindOf(key))
			continue
		}
		if text := r.scalar(key); text[0] != '"' && text != key.Value {
			r.fail("Wrong type", at, path, "a key is a string, and %s is %s in YAML: write %q, in quotes.", key.Value, text, key.Value)
			continue
		}
		if first, dup := seen[key.Value]; dup {
			r.fail("Duplicate field", at, path, "%q stands here a second time, after line %d. One of them would be lost.", key.Value, first.Start.Line)
			continue
		}
		seen[key.Value] = at
		f(key.Value, e)
	}
}

// remember notes where a field stands: its value or, if there is none to be
// seen, its key.
func (r *reader) remember(path string, e entry) {
	r.places[path] = r.place(e.value)
	if e.value.Kind == yaml.ScalarNode && e.value.Value == "" && e.value.Style == 0 {
		r.places[path] = r.place(e.key)
	}
}

// fields fills a struct.
func (r *reader) fields(v reflect.Value, n *yaml.Node, path *field.Path) {
	known := make(map[string]reflect.Value)
	collect(v, known)
	r.each(n, path, func(key string, e entry) {
		into, ok := known[key]
		if !ok {
			r.fail("Unknown field", r.place(e.key), path, "there is no field %q here.%s", key, nearest(key, known))
			return
		}
		path := path.Child(key)
		r.remember(path.String(), e)
		r.value(into, e.value, path)
	})
}

// collect finds a struct's fields by their names in JSON.
func collect(v reflect.Value, into map[string]reflect.Value) {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "" {
			collect(v.Field(i), into) // TypeMeta, ListMeta
			continue
		}
		into[name] = v.Field(i)
	}
}

// nearest proposes a field that may have been meant.
func nearest(key string, known map[string]reflect.Value) string {
	best, least := "", 3
	for name := range known {
		d := levenshtein.Distance(strings.ToLower(key), strings.ToLower(name), nil)
		if d < least && d < len(name) || d == least && best != "" && name < best {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}

// strings fills a map of strings.
func (r *reader) strings(v reflect.Value, n *yaml.Node, path *field.Path) {
	v.Set(reflect.MakeMap(v.Type()))
	r.each(n, path, func(key string, e entry) {
		value := reflect.New(v.Type().Elem()).Elem()
		r.value(value, e.value, path.Key(key))
		v.SetMapIndex(reflect.ValueOf(key), value)
		if isNull(e.value) {
			r.warn("Nothing is read as an empty value", r.place(e.key), path.Key(key), "there is no value here, which means \"\". Write \"\" if that is what is meant.")
		}
		r.remember(member(path.String(), value.String()), e)
		r.places[member(path.String(), key)] = r.place(e.key)
	})
}

// list fills a slice.
func (r *reader) list(v reflect.Value, n *yaml.Node, path *field.Path) {
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		path := path.Index(i)
		r.places[path.String()] = r.place(item)
		r.value(v.Index(i), item, path)
		if isNull(item) && v.Type().Elem().Kind() == reflect.Struct {
			r.warn("Nothing is read as an empty item", r.place(item), path, "there is nothing in this item, which means {}. Write {} if that is what is meant.")
		}
	}
}

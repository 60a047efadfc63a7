package kube

import (
	"fmt"
	"reflect"
	"slices"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"go.yaml.in/yaml/v3"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/poldernet/polder/spec"
)

// Decode reads the NetworkPolicies of a file: YAML with any number of
// documents, or JSON, also lists. Other kinds are errors. Fields that are left
// out get the values that the API server gives them, and what it would refuse
// is an error at the line where it stands.
//
// The policies are those without errors, in the order of the file. Places are
// in a file of the given name.
func Decode(name string, text []byte) ([]*spec.Policy, hcl.Diagnostics) {
	f := file{source: newSource(name, text), names: make(map[string]hcl.Range)}
	if !utf8.Valid(text) {
		at := 0
		for at < len(text) {
			r, size := utf8.DecodeRune(text[at:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		return nil, hcl.Diagnostics{f.mistake("YAML cannot be read", f.between(at, at+1), "This is not UTF-8.")}
	}
	for _, d := range f.documents() {
		list, diag := d.parse()
		for _, n := range list {
			if !isNull(n) {
				f.object(&reader{document: &d, aliased: &f.aliased}, n, metav1.TypeMeta{})
			}
		}
		if diag != nil {
			f.diags = append(f.diags, diag)
		}
	}
	slices.SortStableFunc(f.diags, func(a, b *hcl.Diagnostic) int { return a.Subject.Start.Byte - b.Subject.Start.Byte })
	// What is read in two ways, as an object's kind is, is said once.
	f.diags = slices.CompactFunc(f.diags, func(a, b *hcl.Diagnostic) bool {
		return a.Detail == b.Detail && a.Subject.Start.Byte == b.Subject.Start.Byte
	})
	return f.policies, f.diags
}

// file is what was read of a file.
type file struct {
	*source
	policies []*spec.Policy
	names    map[string]hcl.Range
	aliased  int
	diags    hcl.Diagnostics
}

const policyKind = "NetworkPolicy"

var (
	apiVersion = networkingv1.SchemeGroupVersion.String()

	aPolicy     = metav1.TypeMeta{Kind: policyKind, APIVersion: apiVersion}
	aPolicyList = metav1.TypeMeta{Kind: policyKind + "List", APIVersion: apiVersion}
	aList       = metav1.TypeMeta{Kind: "List", APIVersion: "v1"}
)

// list is any list of objects.
type list struct {
	metav1.TypeMeta `json:""`
	metav1.ListMeta `json:"metadata"`
	Items           []*yaml.Node `json:"items"`
}

// object reads an object, or those of a list. Objects of a list of one kind
// need not name it.
func (f *file) object(r *reader, n *yaml.Node, head metav1.TypeMeta) {
	r.places = map[string]hcl.Range{"": r.head(n)}
	defer func() { f.diags = append(f.diags, r.diags...) }()
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		r.inAlias++
	}
	if !r.afford(n) || !r.is(n, yaml.MappingNode, "An object", nil) {
		return
	}
	// Fields depend on the kind, so that it is read first.
	r.places["kind"], r.places["apiVersion"] = r.places[""], r.places[""]
	for _, e := range r.entries(n) {
		value := e.value
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		switch e.key.Value {
		case "kind":
			head.Kind = value.Value
			r.remember("kind", e)
		case "apiVersion":
			head.APIVersion = value.Value
			r.remember("apiVersion", e)
		}
	}
	switch head {
	case aPolicy:
		f.policy(r, n)
	case aList:
		f.list(r, n, metav1.TypeMeta{})
	case aPolicyList:
		f.list(r, n, aPolicy)
	default:
		r.unknown(head)
	}
}

func (f *file) list(r *reader, n *yaml.Node, head metav1.TypeMeta) {
	var l list
	r.value(reflect.ValueOf(&l).Elem(), n, nil)
	for _, item := range l.Items {
		f.object(&reader{document: r.document, aliased: r.aliased, inAlias: r.inAlias}, item, head)
	}
}

// head is the first line of an object.
func (d *document) head(n *yaml.Node) hcl.Range {
	if n.Kind == yaml.MappingNode && len(n.Content) > 0 && n.Style&yaml.FlowStyle == 0 {
		return d.place(n.Content[0])
	}
	return d.place(n)
}

// unknown reports an object that is no NetworkPolicy.
func (r *reader) unknown(head metav1.TypeMeta) {
	switch {
	case head.Kind == "":
		r.fail("Missing kind", r.places["kind"], nil, "An object has a kind, here kind: %s with apiVersion: %s.", policyKind, apiVersion)
	case head.Kind == policyKind && head.APIVersion == "":
		r.fail("Missing apiVersion", r.places["apiVersion"], nil, "An object has an apiVersion, here %s.", apiVersion)
	case head.Kind == policyKind:
		r.fail("Unknown version of NetworkPolicy", r.places["apiVersion"], nil, "%q is not read here; apiVersion: %s is.", head.APIVersion, apiVersion)
	default:
		r.fail("Not a NetworkPolicy", r.places["kind"], nil, "This is %s of %q; only %s of %s is read here. Keep other objects in other files.",
			head.Kind, head.APIVersion, policyKind, apiVersion)
	}
}

// policy reads a NetworkPolicy.
func (f *file) policy(r *reader, n *yaml.Node) {
	var np networkingv1.NetworkPolicy
	r.value(reflect.ValueOf(&np).Elem(), n, nil)
	np.Namespace = namespace(&np)
	c := converter{strict: true, at: r.at}
	for _, err := range apivalidation.ValidateObjectMeta(&np.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metadataPath) {
		if err.Type == field.ErrorTypeRequired && err.Field == metadataPath.Child("name").String() {
			err.Detail = "a policy of a file needs a name of its own"
		}
		c.fail(err)
	}
	p := c.policy(&np)
	misread := len(r.diags)
	for _, err := range c.errs {
		r.report(err, r.diags[:misread])
	}
	if r.diags.HasErrors() {
		return
	}
	if first, dup := f.names[p.Name]; dup {
		r.fail("Duplicate NetworkPolicy", p.Range, nil, "%s stands already on line %d. An API server would keep this one and forget that.", p.Name, first.Start.Line)
		return
	}
	f.names[p.Name] = p.Range
	f.policies = append(f.policies, p)
}

// report says what the converter found, unless it found it because the field
// could not be read.
func (r *reader) report(err *field.Error, misread hcl.Diagnostics) {
	at, ok := r.places[member(err.Field, fmt.Sprint(err.BadValue))]
	if !ok {
		at = r.placeOf(err.Field)
	}
	for _, d := range misread {
		if d.Severity == hcl.DiagError && d.Subject.Start.Byte == at.Start.Byte {
			return
		}
	}
	r.diags = append(r.diags, r.mistake(err.Type.String(), at, "%s: %s.", err.Field, text(err)))
}

package flannel

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// deployment is what a kube-flannel.yml says: how flannel runs everywhere.
type deployment struct {
	config
	cni     *cni
	options *options
	// others are containers beside flanneld, by name.
	others []string
	// objects says that it came as objects of Kubernetes, and not as a net-conf.json.
	objects bool
}

// inKubernetes says that flannel has its nodes from Kubernetes. Where the options
// are not to be seen, they are taken for those of kube-flannel.yml.
func (f deployment) inKubernetes() bool {
	return f.objects && (f.options == nil || f.options.elsewhere || f.options.kubernetes)
}

// The keys of the ConfigMap kube-flannel-cfg.
const (
	netConfKey = "net-conf.json"
	cniConfKey = "cni-conf.json"
)

// yamlError is how the YAML parser says where it failed.
var yamlError = regexp.MustCompile(`line (\d+): `)

// manifest reads a document as Kubernetes objects.
func (d *document) manifest() deployment {
	out := deployment{objects: true}
	var conf, cniConf *yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(d.text))
	for {
		var n yaml.Node
		err := decoder.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			d.failYAML(err)
			return out
		}
		for _, o := range objects(&n) {
			switch kind, data := scalar(o, "kind"), child(o, "data"); {
			case kind == "ConfigMap" && child(data, netConfKey) != nil:
				if conf != nil {
					d.fail(d.node(child(data, netConfKey)), "Two configurations", "There is a %s in line %d already. Give a file of one flannel.", netConfKey, conf.Line)
					continue
				}
				conf, cniConf = child(data, netConfKey), child(data, cniConfKey)
			case kind == "DaemonSet":
				d.daemonSet(o, &out)
			}
		}
	}
	if conf == nil {
		d.fail(d.between(0, 0), "No configuration of flannel's", "There is no ConfigMap with the key %s here. A kube-flannel.yml has one, named kube-flannel-cfg; what flannel reads itself is JSON and begins with a brace.", netConfKey)
		return out
	}
	if p, ok := d.scalarPart(conf, netConfKey); ok {
		out.config = p.config()
	}
	if cniConf != nil {
		if p, ok := d.scalarPart(cniConf, cniConfKey); ok {
			out.cni = p.cni()
		}
	}
	return out
}

func (d *document) failYAML(err error) {
	at := d.between(0, 0)
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlError.FindStringSubmatch(message); m != nil {
		message = strings.Replace(message, m[0], "", 1)
		if line, err := strconv.Atoi(m[1]); err == nil {
			from, to := d.line(line)
			at = d.between(from, to)
		}
	}
	d.fail(at, "This is not YAML", "%s.", message)
}

// line is from where to where a line is, without its end.
func (d *document) line(number int) (from, to int) {
	for range number - 1 {
		i := bytes.IndexByte(d.text[from:], '\n')
		if i < 0 {
			return len(d.text), len(d.text)
		}
		from += i + 1
	}
	if i := bytes.IndexByte(d.text[from:], '\n'); i >= 0 {
		return from, from + i
	}
	return from, len(d.text)
}

// start is where a node begins. YAML's columns count characters.
func (d *document) start(n *yaml.Node) int {
	at, end := d.line(n.Line)
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(d.text[at:end])
		at += size
	}
	return at
}

// scalarPart is the text of a scalar. In one with the style |, which is what
// people write JSON in, each byte has its place; in others all have that of the
// scalar.
func (d *document) scalarPart(n *yaml.Node, name string) (part, bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		d.fail(d.node(n), "Unsuitable value", "%s is no text.", name)
		return part{}, false
	}
	p := part{document: d, text: []byte(n.Value)}
	if n.Style&yaml.LiteralStyle == 0 {
		start := d.start(n)
		p.offset = func(int) int { return start }
		return p, true
	}
	p.offset = func(i int) int {
		i = min(i, len(n.Value))
		begin := strings.LastIndexByte(n.Value[:i], '\n') + 1
		content, _, _ := strings.Cut(n.Value[begin:], "\n")
		from, to := d.line(n.Line + 1 + strings.Count(n.Value[:i], "\n"))
		text := bytes.TrimSuffix(d.text[from:to], []byte("\r"))
		return from + max(0, len(text)-len(content)) + i - begin
	}
	return p, true
}

// objects are those of a YAML document, also in lists.
func objects(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	items := child(n, "items")
	if items == nil || items.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	return items.Content
}

// child is the value of a key, where the node is a map and has it.
func child(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		if n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var found *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				found = n.Content[i+1]
			}
		}
		n = found
	}
	return n
}

// scalar is the text of a key, "" where there is none.
func scalar(n *yaml.Node, keys ...string) string {
	if n = child(n, keys...); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

// items are the elements of a list.
func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// daemonSet reads the options of flanneld from a DaemonSet. There may be one
// for each architecture.
func (d *document) daemonSet(o *yaml.Node, out *deployment) {
	var others []string
	var found *options
	for _, c := range items(child(o, "spec", "template", "spec", "containers")) {
		words := append(items(child(c, "command")), items(child(c, "args"))...)
		runs := scalar(c, "name") == "kube-flannel"
		for _, w := range words {
			runs = runs || strings.Contains(w.Value, "flanneld")
		}
		if !runs {
			others = append(others, scalar(c, "name"))
			continue
		}
		found = d.readOptions(words, items(child(c, "env")))
	}
	switch {
	case found == nil:
		return // of something else
	case out.options != nil && !out.options.same(found):
		d.fail(d.node(o), "Two ways of running flannel", "This DaemonSet gives flanneld other options than the one before it. Give a file with one of them.")
		return
	}
	out.options, out.others = found, others
}

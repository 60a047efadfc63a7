package flannel

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"go.yaml.in/yaml/v3"
)

// options are those of flanneld that mean something to a spec.
type options struct {
	kubernetes  bool // --kube-subnet-mgr: each Node has its subnet
	masquerade  bool
	notRandom   bool
	interfaces  []string
	regexes     []string
	canReach    string
	publicIPs   []string
	noForward   bool // --iptables-forward-rules=false
	blackhole   bool
	annotations string
	elsewhere   bool     // in a shell's command line, which is not read
	secret      []string // set from what the file does not say
	idle        []string // that have nothing to be in a spec, as written
}

func (o *options) same(other *options) bool {
	return o.kubernetes == other.kubernetes && o.masquerade == other.masquerade && o.notRandom == other.notRandom && slices.Equal(o.interfaces, other.interfaces) &&
		slices.Equal(o.regexes, other.regexes) && o.canReach == other.canReach && o.elsewhere == other.elsewhere
}

// The options of flanneld v0.28.9 (main.go): what they are to a spec.
var (
	boolOptions = map[string]func(*options, bool){
		"ip-masq":                      func(o *options, on bool) { o.masquerade = on },
		"ip-masq-fully-random-disable": func(o *options, on bool) { o.notRandom = on },
		"iptables-forward-rules":       func(o *options, on bool) { o.noForward = !on },
		"ip-blackhole-route":           func(o *options, on bool) { o.blackhole = on },
		"kube-subnet-mgr":              func(o *options, on bool) { o.kubernetes = on },
		"set-node-network-unavailable": nil,
		"version":                      nil,
	}
	textOptions = map[string]func(*options, string){
		"iface":                     func(o *options, s string) { o.interfaces = append(o.interfaces, s) },
		"iface-regex":               func(o *options, s string) { o.regexes = append(o.regexes, s) },
		"iface-can-reach":           func(o *options, s string) { o.canReach = s },
		"public-ip":                 func(o *options, s string) { o.publicIPs = append(o.publicIPs, s) },
		"public-ipv6":               func(o *options, s string) { o.publicIPs = append(o.publicIPs, s) },
		"kube-annotation-prefix":    func(o *options, s string) { o.annotations = s },
		"etcd-endpoints":            nil,
		"etcd-prefix":               nil,
		"etcd-keyfile":              nil,
		"etcd-certfile":             nil,
		"etcd-cafile":               nil,
		"etcd-username":             nil,
		"etcd-password":             nil,
		"subnet-file":               nil,
		"subnet-lease-renew-margin": nil,
		"kube-api-url":              nil,
		"kubeconfig-file":           nil,
		"healthz-ip":                nil,
		"healthz-port":              nil,
		"iptables-resync":           nil,
		"net-config-path":           nil,
		"v":                         nil,
		"vmodule":                   nil,
		"log_backtrace_at":          nil,
	}
)

// OfKubernetes says whether flanneld with such arguments has its nodes from Kubernetes.
func OfKubernetes(args []string) (of bool) {
	for _, arg := range args {
		name, text, has := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		if strings.HasPrefix(arg, "-") && name == "kube-subnet-mgr" {
			on, err := strconv.ParseBool(text)
			of = !has || err == nil && on
		}
	}
	return of
}

// node is the place of a YAML scalar, or of where something longer begins.
func (d *document) node(n *yaml.Node) hcl.Range {
	from := d.start(n)
	to := from + 1
	if n.Kind == yaml.ScalarNode && n.Style == 0 {
		to = from + len(n.Value)
	}
	_, end := d.line(n.Line)
	return d.between(from, min(to, end))
}

// readOptions reads a command line as Go's flag package does, and then the
// environment, which sets what the command line does not.
func (d *document) readOptions(words, env []*yaml.Node) *options {
	o := &options{}
	given := map[string]bool{}
	if len(words) > 0 && !strings.HasPrefix(words[0].Value, "-") {
		if !strings.HasSuffix(words[0].Value, "flanneld") {
			o.elsewhere = true
			return o
		}
		words = words[1:]
	}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		name, ok := strings.CutPrefix(w.Value, "-")
		name = strings.TrimPrefix(name, "-")
		if !ok || name == "" {
			if w.Value != "--" {
				d.fail(d.node(w), "Unsuitable argument", "flanneld reads no option behind %q, which is none.", w.Value)
			}
			break
		}
		name, text, has := strings.Cut(name, "=")
		if _, wants := textOptions[name]; wants && !has {
			if len(words) == 0 {
				d.fail(d.node(w), "Option without a value", "--%s needs a value: --%s=VALUE", name, name)
				break
			}
			text, words = words[0].Value, words[1:]
		}
		if _, is := boolOptions[name]; is && !has {
			text = "true"
		}
		d.option(o, w, name, text)
		given[name] = true
	}
	for _, e := range env {
		name, ok := strings.CutPrefix(scalar(e, "name"), "FLANNELD_")
		name = optionName(name)
		if !ok || name == "" || given[name] {
			continue
		}
		if child(e, "valueFrom") != nil {
			o.secret = append(o.secret, "--"+name)
			continue
		}
		if text := scalar(e, "value"); text != "" {
			d.option(o, child(e, "value"), name, text)
		}
	}
	return o
}

// optionName is the option that a variable of the environment sets, or "".
func optionName(variable string) string {
	for _, name := range append(slices.Collect(maps.Keys(boolOptions)), slices.Collect(maps.Keys(textOptions))...) {
		if strings.ToUpper(strings.ReplaceAll(name, "-", "_")) == variable {
			return name
		}
	}
	return ""
}

func (d *document) option(o *options, w *yaml.Node, name, text string) {
	if set, ok := boolOptions[name]; ok {
		on, err := strconv.ParseBool(text)
		if err != nil {
			d.fail(d.node(w), "Unsuitable value", "--%s is true or false, and not %q.", name, text)
			return
		}
		if set != nil {
			set(o, on)
		} else {
			o.idle = append(o.idle, "--"+name)
		}
		return
	}
	set, ok := textOptions[name]
	switch {
	case !ok:
		d.fail(d.node(w), "Unknown option", "flanneld has no option --%s, and does not start with it.", name)
	case set != nil:
		set(o, text)
	default:
		o.idle = append(o.idle, "--"+name)
	}
}

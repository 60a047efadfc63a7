package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// literals are the strings in the sources of the program.
func literals(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					list = append(list, text)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// These two are one warning.
const (
	noBridge    = "this node has no bridge %s: policies hold by address, but who sends from a pod's address is not checked. "
	otherBridge = "If pods are on another bridge, name it in the enforcement block; if they come later, nothing is wrong"
)

// quoted are what the manual quotes on Kubernetes, as the sources have it.
var quoted = []string{
	"polder's daemon does not run: nothing is enforced for the container",
	"no daemon is running with this state directory",
	"what is to be enforced for the container is not in the kernel",
	"an address of the container is another one's",
	"a route leads to %s by %s, and the container is at %s",
	"not in force",
	"not in sync: waiting for the cluster",
	"not in sync with the spec",
	"nothing is heard of the cluster",
	"held since %s: nothing is repaired until an apply",
	"%w: the cluster has not told of pod %s (UID %s) yet",
	"this node has no part in the pod network: %s",
	"it has no pod CIDR yet",
	"left out of the pod network: ",
	"What is not understood of this policy lets nothing through: ",
	"the kernel module br_netfilter is not loaded: packets between pods of one node pass no inet hook. ",
	"Load it with `modprobe br_netfilter`, and list it in /etc/modules-load.d/polder.conf",
	noBridge, otherBridge,
	"the kernel refuses it, so that what it selects is closed: ",
	"On node ",
	"; the kernel stays as it is",
	"nothing is heard of it: ",
	"it does not take what this node publishes: ",
}

// warnings are what the compiler warns of in its golden files.
func warnings(t *testing.T) (list []string) {
	t.Helper()
	files, err := filepath.Glob("../../overlay/testdata/compile/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if w, ok := strings.CutPrefix(strings.TrimSpace(line), "warning "); ok {
				list = append(list, w)
			}
		}
	}
	return list
}

// The manual quotes messages as the program writes them, to the letter: who searches
// for one finds it.
func TestManualQuotesMessages(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## On Kubernetes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	sources, verb := literals(t), regexp.MustCompile(`%[a-z]`)
	var patterns []*regexp.Regexp
	for _, literal := range quoted {
		if !slices.Contains(sources, literal) {
			t.Errorf("the program does not say %q any more", literal)
		}
		literal = strings.TrimSuffix(strings.TrimPrefix(literal, "%w: "), ": %w")
		pieces := verb.Split(strings.Trim(literal, " :"), -1)
		for i, p := range pieces {
			pieces[i] = regexp.QuoteMeta(p)
		}
		pattern := regexp.MustCompile(strings.Join(pieces, `\S+`))
		if !pattern.MatchString(strings.Join(strings.Fields(section), " ")) {
			t.Errorf("the manual does not quote %q", literal)
		}
		patterns = append(patterns, pattern)
	}
	warned := append(warnings(t), fmt.Sprintf(noBridge+otherBridge, "cbr0"))
	for _, line := range regexp.MustCompile("(?m)^ *Warning: (.*)$").FindAllStringSubmatch(section, -1) {
		if !strings.HasPrefix(line[1], "left out of the pod network: ") && !slices.Contains(warned, line[1]) {
			t.Errorf("the compiler warns of %q, and not of %q", warned, line[1])
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1)
	for _, row := range rows {
		if !slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(row[1]) }) {
			t.Errorf("nobody holds %q to the sources", row[1])
		}
	}
	if len(rows) == 0 {
		t.Error("what the plugin says is in no table")
	}
}

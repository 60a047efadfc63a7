package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/examples"
	"github.com/poldernet/polder/internal/lab"
)

// documents are all that have commands in them.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(files, "../../README.md")
}

// transcript is one command of a document with the output shown below it.
type transcript struct {
	line    int
	command string
	output  []string
}

// blocks returns the lines of a document's fenced blocks of one kind. A blank
// line stands between two blocks; lines keep their numbers.
func blocks(text, kind string) map[int]string {
	lines := map[int]string{}
	inside := false
	for i, line := range strings.Split(text, "\n") {
		if fence, ok := strings.CutPrefix(line, "```"); ok {
			inside = fence == kind
			continue
		}
		if inside {
			lines[i+1] = line
		}
	}
	return lines
}

// transcripts reads the console blocks of a document.
func transcripts(text string) []transcript {
	var list []transcript
	lines := blocks(text, "console")
	for i := range strings.Count(text, "\n") + 1 {
		line, inside := lines[i+1]
		if !inside {
			continue
		}
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			list = append(list, transcript{line: i + 1, command: command})
		} else if n := len(list); n > 0 {
			list[n-1].output = append(list[n-1].output, line)
		}
	}
	return list
}

// pattern matches the output that a document shows. "..." stands for any text
// in a line, and for any lines where it stands alone.
func (c transcript) pattern() *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range c.output {
		if line == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `\n`)
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

var number = regexp.MustCompile(`\d+`)

// renumber writes the numbers of the real output into the document. More than
// numbers is for a person to change, who knows what the text around it says.
func (c transcript) renumber(text, out []byte) []byte {
	words := func(line string) string { return number.ReplaceAllString(line, "#") }
	lines := strings.Split(string(text), "\n")
	printed := strings.Split(string(out), "\n")
	for i := range c.output {
		shown := &lines[c.line+i]
		at := slices.IndexFunc(printed, func(line string) bool { return words(line) == words(*shown) })
		if at >= 0 {
			*shown, printed = printed[at], printed[at+1:]
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

// run runs the command on node n1. What makes a lab of its own runs beside it.
func (c transcript) run(ctx context.Context, l *lab.Lab) ([]byte, error) {
	if command, ok := besideLab[c.command]; ok {
		cmd := exec.CommandContext(ctx, "polder", command...)
		cmd.Env = append(os.Environ(), "NO_COLOR=1")
		return cmd.CombinedOutput()
	}
	cmd := l.Node("n1").Command(ctx, "sh", "-c", c.command)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	return cmd.CombinedOutput()
}

// besideLab are commands that make a lab of their own, and what the task runs
// after it has built polder.
var besideLab = map[string][]string{"./task demo": {"lab", "demo"}}

// daemonManual is read where a daemon runs.
const daemonManual = "daemon.md"

// examplesOf are the documents that are read in another example than the
// richest network.
var examplesOf = map[string]string{"policy.md": "policy"}

// documentLab is what a document is read in.
func documentLab(t *testing.T, document string) *lab.Lab {
	t.Helper()
	example, ok := examplesOf[document]
	if !ok {
		example = examples.Demo
	}
	l, err := upExample(example)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestDocumentsTellTheTruth runs what the documents show, each document in a
// lab of its own, and compares what is printed.
func TestDocumentsTellTheTruth(t *testing.T) {
	lab.Require(t)
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		commands := transcripts(string(text))
		if len(commands) == 0 {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			l := documentLab(t, filepath.Base(file))
			if filepath.Base(file) == daemonManual {
				m := newManager(t)
				daemon := m.start(l.Node("n1"), "polder", "run")
				m.await("READY=1")
				defer m.end(daemon)
			}
			for _, c := range commands {
				out, err := c.run(t.Context(), l)
				if err != nil {
					t.Fatalf("line %d: %s: %v\n%s", c.line, c.command, err, out)
				}
				if *update {
					text = c.renumber(text, out)
					continue
				}
				if !c.pattern().Match(out) {
					t.Errorf("line %d: %s prints\n%s\nand not\n%s", c.line, c.command, out, strings.Join(c.output, "\n"))
				}
			}
			if *update {
				if err := os.WriteFile(file, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestDocumentedCommandsRun runs the commands that stand in documents without
// their output, in order: those of a lab from the top folder, as a reader
// would, all others on a node. Apply is answered with yes. Edits of the spec are
// TestSpecsInDocumentsLoad's, and what is not polder's is for real hosts.
func TestDocumentedCommandsRun(t *testing.T) {
	lab.Require(t)
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := blocks(string(text), "sh")
		var commands []string
		for _, number := range slices.Sorted(maps.Keys(lines)) {
			command := strings.TrimPrefix(lines[number], "sudo ")
			if strings.HasPrefix(command, "polder ") && !strings.HasPrefix(command, "polder node ") {
				commands = append(commands, command)
			}
		}
		if len(commands) == 0 {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			l := documentLab(t, filepath.Base(file))
			for _, command := range commands {
				answer := ""
				if strings.HasSuffix(command, "polder apply") {
					answer = "yes\n"
				}
				inLab := l.Node("n1").Command(t.Context(), "sh", "-c", command)
				inLab.Stdin = strings.NewReader(answer)
				run := inLab.CombinedOutput
				if strings.HasPrefix(command, "polder lab ") {
					cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
					cmd.Stdin, cmd.Dir = strings.NewReader(answer), "../.."
					run = cmd.CombinedOutput
				}
				if out, err := run(); err != nil {
					t.Fatalf("%s: %v\n%s", command, err, out)
				}
			}
		})
	}
}

// TestSpecsInDocumentsLoad takes the specs that README and manual begin with,
// and edits them as the manual says.
func TestSpecsInDocumentsLoad(t *testing.T) {
	for file, nodes := range map[string]int{"../../README.md": 2, "../../docs/getting-started.md": 2} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "edge.hcl")
		var source strings.Builder
		lines := blocks(string(text), "hcl")
		for _, number := range slices.Sorted(maps.Keys(lines)) {
			source.WriteString(lines[number] + "\n")
		}
		if err := os.WriteFile(path, []byte(source.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		lines = blocks(string(text), "sh")
		for _, number := range slices.Sorted(maps.Keys(lines)) {
			args, ok := strings.CutPrefix(lines[number], "polder ")
			if !ok || !strings.HasPrefix(args, "node ") {
				continue
			}
			polder(t, append(strings.Fields(args), "--spec", path)...)
		}
		want := fmt.Sprintf("Success! %s is valid: %d nodes, 0 endpoints.\n", path, nodes)
		if got := polder(t, "validate", "--spec", path); got != want {
			t.Errorf("%s: %s", filepath.Base(file), got)
		}
		polder(t, "fmt", "--check", path)
	}
}

// polder runs a command that must succeed and returns what it prints.
func polder(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if status := run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &errs}, nil); status != 0 {
		t.Fatalf("polder %s: status %d\n%s%s", strings.Join(args, " "), status, out.String(), errs.String())
	}
	return out.String()
}

func TestPattern(t *testing.T) {
	shown := transcripts("```console\n$ polder plan\nPlan: ...\n\n...\nend.\n```\n```sh\n$ no\n```\n")
	if len(shown) != 1 || shown[0].command != "polder plan" {
		t.Fatalf("got %+v", shown)
	}
	for out, want := range map[string]bool{
		"Plan: 3 to add\n\na\nb\nend.\n": true,
		"Plan: \n\nend.\n":               true,
		"Plan: 3 to add\na\nend.\n":      false,
		"Plan: 3 to add\n\na\nendx\n":    false,
		"Plan: 3 to add\n\nend.\nmore\n": false,
		"x Plan: 3 to add\n\nend.\n":     false,
	} {
		if got := shown[0].pattern().MatchString(out); got != want {
			t.Errorf("%q: %t, want %t", out, got, want)
		}
	}
}

// A dependency without a reason in the manual has none.
func TestEveryDependencyIsExplained(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	required := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(mod), -1)
	listed := regexp.MustCompile(`(?m)^\| (\S+\.\S+) \|`).FindAllStringSubmatch(string(text), -1)
	for _, module := range required {
		if !strings.Contains(string(text), "| "+module[1]+" |") {
			t.Errorf("%s is in go.mod and not in docs/dependencies.md", module[1])
		}
	}
	if len(required) == 0 || len(listed) != len(required) {
		t.Errorf("go.mod has %d direct dependencies, docs/dependencies.md %d", len(required), len(listed))
	}
}

// Links between the documents lead somewhere.
func TestLinksLead(t *testing.T) {
	files := append(documents(t), "../../ARCHITECTURE.md", "../../CONTRIBUTING.md")
	more, err := filepath.Glob("../../docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range regexp.MustCompile(`\]\(([^)#:]*)(#[^)]+)?\)`).FindAllStringSubmatch(string(text), -1) {
			to := file
			if link[1] != "" {
				to = filepath.Join(filepath.Dir(file), link[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			} else if link[2] != "" && !slices.Contains(anchors(t, to), link[2]) {
				t.Errorf("%s: %s has no heading for %s", filepath.Base(file), filepath.Base(to), link[2])
			}
		}
	}
}

// anchors are what links to the headings of a document end with, as GitHub has it.
func anchors(t *testing.T, file string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		words := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		list = append(list, "#"+strings.ReplaceAll(words, " ", "-"))
	}
	return list
}

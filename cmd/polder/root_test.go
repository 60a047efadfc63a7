package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func testRoot(t *testing.T) *cobra.Command {
	t.Helper()
	root, err := newRootCommand(&app{streams: streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard}})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// parses says whether a command line names a command and flags of it.
func parses(args []string) error {
	root, err := newRootCommand(&app{})
	if err != nil {
		return err
	}
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if cmd.Args == nil {
		return nil
	}
	return cmd.Args(cmd, cmd.Flags().Args())
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, cmd := range commands(testRoot(t)) {
		t.Run(strings.ReplaceAll(cmd.CommandPath(), " ", "-"), func(t *testing.T) {
			if cmd.Short == "" || cmd.Example == "" {
				t.Fatalf("short %q, example %q", cmd.Short, cmd.Example)
			}
			for line := range strings.Lines(cmd.Example) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
				line, _, _ = strings.Cut(line, " < ")
				line, _, _ = strings.Cut(line, " > ")
				line = strings.TrimSuffix(strings.TrimPrefix(line, "source <("), ")")
				args, ok := strings.CutPrefix(line, "polder ")
				if !ok {
					t.Errorf("%q is no command of polder", line)
					continue
				}
				if err := parses(strings.Fields(args)); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		})
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"paln"}, `polder has no command "paln"; did you mean plan?`},
		{[]string{"plan", "--jsn"}, "unknown flag: --jsn"},
		{[]string{"plan", "n1"}, "unknown command"},
		{[]string{"node", "ad", "n4"}, `polder node has no command "ad"; did you mean add?`},
		{[]string{"node", "add"}, "polder node add takes NAME, and no argument is given"},
		{[]string{"node", "add", "n4"}, "a node needs --address"},
		{[]string{"apply", "--json", "--spec", "testdata/one.hcl", "--node", "n1"}, "--json needs --auto-approve"},
	} {
		var out, errs bytes.Buffer
		status := run(t.Context(), test.args, streams{in: strings.NewReader(""), out: &out, err: &errs}, os.Environ())
		if status != 1 || out.Len() > 0 {
			t.Errorf("%q: status %d, output %q", test.args, status, out.String())
		}
		got := errs.String()
		if !strings.HasPrefix(got, "polder: ") || !strings.Contains(got, test.want) || !strings.Contains(got, "--help") {
			t.Errorf("%q: %s", test.args, got)
		}
		if strings.Count(got, "polder: ") != 1 {
			t.Errorf("%q: the error is printed more than once:\n%s", test.args, got)
		}
	}
}

func TestColourIsForTerminals(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	defer terminal.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		name   string
		app    app
		stream io.Writer
		want   bool
	}{
		{"terminal", app{}, terminal, true},
		{"NO_COLOR", app{environ: []string{"NO_COLOR=1"}}, terminal, false},
		{"empty NO_COLOR", app{environ: []string{"NO_COLOR="}}, terminal, true}, // so says no-color.org
		{"TERM=dumb", app{environ: []string{"TERM=dumb"}}, terminal, false},
		{"--no-color", app{noColor: true}, terminal, false},
		{"/dev/null", app{}, file, false},
		{"buffer", app{}, &bytes.Buffer{}, false},
	} {
		if got := test.app.color(test.stream); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

// failingWriter is a terminal that has gone away.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left on device") }

func TestLostOutputIsAnError(t *testing.T) {
	var errs bytes.Buffer
	status := run(t.Context(), []string{"version"}, streams{in: strings.NewReader(""), out: failingWriter{}, err: &errs}, nil)
	if status != 1 || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("status %d, %s", status, errs.String())
	}
}

package nft

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

var (
	inetPolder   = TableID{INet, TableName}
	bridgePolder = TableID{Bridge, TableName}
)

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// kernel is a network namespace with sockets to its nftables.
type kernel struct {
	*lab.Namespace
	t tb
	w *Writer
}

func newKernel(t testing.TB) *kernel {
	t.Helper()
	lab.Require(t)
	n, err := lab.NewNamespace("n1")
	if err != nil {
		t.Fatal(err)
	}
	k := &kernel{Namespace: n, t: t}
	err = n.Do(func() (err error) {
		k.w, err = OpenWriter()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.w.Close(); err != nil {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// read reads our tables.
func (k *kernel) read() (Ruleset, Generation) {
	k.t.Helper()
	rs, gen, err := k.w.reader.Read(context.Background(), inetPolder, bridgePolder)
	if err != nil {
		k.t.Fatal(err)
	}
	return rs, gen
}

// apply makes the kernel hold the tables, and checks that it does.
func (k *kernel) apply(want ...Table) {
	k.t.Helper()
	observed, gen := k.read()
	p := Diff(want, observed)
	if _, err := k.w.Commit(context.Background(), p, gen); err != nil {
		k.t.Fatalf("%v\nof the plan\n%s", err, p)
	}
	observed, _ = k.read()
	if rest := Diff(want, observed); !rest.Empty() {
		k.t.Fatalf("after the plan\n%sthere remains\n%s", p, rest)
	}
}

// nft runs nft(8) with a script. It prints no values of counters.
func (k *kernel) nft(script string) string {
	k.t.Helper()
	out, err := k.tryNFT(script)
	if err != nil {
		k.t.Fatalf("nft: %v\n%s\nof the script\n%s", err, out, script)
	}
	return out
}

func (k *kernel) tryNFT(script string) (string, error) {
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("POLDER_KERNEL") == "require" {
			k.t.Fatal(err)
		}
		k.t.Skip("this test needs nft(8) to compare with")
	}
	cmd := k.Command(context.Background(), "nft", "-s", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What nft(8) makes of our text is our value.
func TestTextMeansTheValue(t *testing.T) {
	for _, table := range samples() {
		t.Run(string(table.Family), func(t *testing.T) {
			for i := range table.Chains {
				table.Chains[i].Rules = slices.DeleteFunc(table.Chains[i].Rules, func(r Rule) bool { return strings.HasPrefix(r.Comment, "bare") })
			}
			k := newKernel(t)
			k.nft(table.String())
			observed, _ := k.read()
			if p := Diff(Ruleset{table}, observed); !p.Empty() {
				t.Errorf("nft(8) understood the text otherwise:\n%s", p)
				for _, c := range table.Chains {
					have, _ := observed[0].Chain(c.Name)
					for i := range min(len(c.Rules), len(have.Rules)) {
						if w, h := c.Rules[i], have.Rules[i]; !w.Equal(h) {
							t.Errorf("rule %s\nis      %#v\nbecame  %#v", w, w.Exprs, h.Exprs)
						}
					}
				}
			}
		})
	}
}

// What nft(8) prints of our value is our text.
func TestTextIsNFTsOwn(t *testing.T) {
	for _, table := range samples() {
		t.Run(string(table.Family), func(t *testing.T) {
			k := newKernel(t)
			k.apply(table)
			got, want := blocks(k.nft("list table "+table.ID().String())), blocks(table.String())
			for _, b := range want {
				if !slices.Contains(got, b) {
					t.Errorf("we print\n\t%s\nnft(8) prints\n\t%s", b, strings.Join(got, "\n\t"))
				}
			}
			if len(got) != len(want) {
				t.Errorf("nft(8) prints %d objects, we %d", len(got), len(want))
			}
		})
	}
}

var tableHead = regexp.MustCompile(`^table \w+ \w+ \{ `)

// blocks are the objects of a table's text, without regard to white space.
// nft(8) 1.0.6 prints the elements of a hash set in no particular order.
func blocks(text string) []string {
	var list []string
	for _, b := range strings.Split(text, "\n\t}") {
		words := strings.Fields(b)
		if i := slices.Index(words, "elements"); i >= 0 {
			elements := strings.Split(strings.Trim(strings.Join(words[i+2:], " "), "{} "), ", ")
			slices.Sort(elements)
			words = append(words[:i], elements...)
		}
		if line := tableHead.ReplaceAllString(strings.Join(words, " "), ""); line != "}" {
			list = append(list, line)
		}
	}
	return list
}

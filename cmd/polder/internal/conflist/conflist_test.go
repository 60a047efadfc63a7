package conflist

import (
	"bytes"
	"context"
	"flag"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/poldernet/polder/reconcile"
)

var update = flag.Bool("update", false, "write the golden files anew")

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func dual() *reconcile.PodNetwork {
	return &reconcile.PodNetwork{
		Bridge: "cni0", HairpinMode: true, MTU: 1430, Masquerade: true,
		CIDRs: prefixes("10.244.0.0/16", "fd00:10:244::/48"), Subnets: prefixes("10.244.1.0/24", "fd00:10:244:1::/64"),
	}
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("not as in %s (%v):\n%s", file, err, diff.Diff("want", want, "got", got))
	}
}

func TestFiles(t *testing.T) {
	six := &reconcile.PodNetwork{Bridge: "br0", MTU: 1500, CIDRs: prefixes("fd00:10:244::/48"), Subnets: prefixes("fd00:10:244:1::/64")}
	for name, n := range map[string]*reconcile.PodNetwork{"dual": dual(), "ipv6": six} {
		list, err := Conflist(n, map[string]string{"dual": DefaultName, "ipv6": "k8s-pod-network"}[name], "/run/polder")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".conflist", list)
		golden(t, name+".env", Env(n))
	}
}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{"cbr0": true, "k8s-pod-network": true, "a_b.c": true, "": false, "-a": false, "a/../b": false, "a b": false, "a\n": false} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// script is a daemon that stands one way at each event of its journal.
type script struct {
	conditions []reconcile.Condition
	at         int
	check      func(before int)
}

func (s *script) Condition() reconcile.Condition { return s.conditions[s.at] }
func (s *script) Ping(context.Context) error     { return nil }
func (s *script) Last() uint64                   { return uint64(s.at + 1) }

func (s *script) After(context.Context, uint64) iter.Seq[reconcile.Event] {
	return func(yield func(reconcile.Event) bool) {
		for s.at = range s.conditions {
			s.check(s.at)
			if !yield(reconcile.Event{Seq: s.Last()}) {
				return
			}
		}
	}
}

// The files come when the node is in sync, stay when it is not, change with the
// network, and go when everything is removed.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	f := Folder{Conf: filepath.Join(dir, "net.d"), Bin: filepath.Join(dir, "bin"), Name: DefaultName, StateDir: "/run/polder"}
	small := dual()
	small.MTU = 1300
	text := func() string {
		b, _ := os.ReadFile(filepath.Join(f.Conf, FileName)) // or there is none
		return string(b)
	}
	wants := []string{"", "", `"mtu": 1430`, `"mtu": 1430`, `"mtu": 1300`, ""}
	s := &script{conditions: []reconcile.Condition{
		{}, {Pods: dual()}, {}, {Pods: small}, {Held: reconcile.ModeDestroy}, {},
	}}
	s.check = func(i int) {
		if got := text(); (wants[i] == "") != (got == "") || !strings.Contains(got, wants[i]) {
			t.Errorf("before event %d there is %q", i, got)
		}
	}
	f.Keep(t.Context(), s, s, slog.New(slog.DiscardHandler))
	entries, err := os.ReadDir(f.Conf)
	if err != nil || len(entries) != 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(f.Bin, "polder"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the plugin: %v, %v", info, err)
	}
}

// What cannot be written is said once, and tried again.
func TestKeepTriesAgain(t *testing.T) {
	f := Folder{Conf: filepath.Join(t.TempDir(), "net.d"), StateDir: "/run/polder"}
	if err := os.WriteFile(f.Conf, nil, 0o600); err != nil { // where the folder should be
		t.Fatal(err)
	}
	s := &script{conditions: []reconcile.Condition{{Pods: dual()}, {Pods: dual()}, {Pods: dual()}}}
	s.check = func(i int) {
		if i == 2 {
			if err := os.Remove(f.Conf); err != nil {
				t.Error(err)
			}
		}
	}
	var log strings.Builder
	f.Keep(t.Context(), s, s, slog.New(slog.NewTextHandler(&log, nil)))
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("it says %s", log.String())
	}
	if _, err := os.Stat(filepath.Join(f.Conf, FileName)); err != nil {
		t.Error(err)
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/examples"
	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

// Every example does what it says: it is applied in one go, a second plan is
// empty, and every packet travels as the spec promises, or does not where its
// policies deny it.
func TestExamples(t *testing.T) {
	folders, err := examples.FS.ReadDir(".")
	if err != nil || len(folders) < 7 {
		t.Fatal(folders, err)
	}
	for _, folder := range folders {
		t.Run(folder.Name(), func(t *testing.T) {
			lab.Require(t)
			l, err := upExample(folder.Name())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			dir := filepath.Join("..", "..", "examples", folder.Name())
			f, err := findLabFile(dir)
			if err != nil {
				t.Fatal(err)
			}
			a := &app{streams: streams{out: t.Output(), err: t.Output()}}
			topology, s, policies, err := a.loadLab(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"apply", "--auto-approve"}, {"plan", "--detailed-exitcode"}} {
				for _, n := range s.Nodes {
					cmd := l.Node(n.Name).Command(t.Context(), append([]string{"polder"}, args...)...)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("polder %s on %s: %v\n%s", strings.Join(args, " "), n.Name, err, out)
					}
				}
			}
			probeExample(t, l, topology, s, policies)
		})
	}
}

// exampleAsks are what an example's checks are about, and what is for where
// there are none.
func exampleAsks(s *spec.Spec) []ask {
	var asks []ask
	for _, c := range s.Checks {
		for _, service := range c.Services {
			a := ask{port: service.Ports.First}
			switch service.Protocol {
			case spec.ProtocolTCP:
				a.protocol = lab.TCP
			case spec.ProtocolUDP:
				a.protocol = lab.UDP
			default:
				a.protocol = lab.ICMP
			}
			if !slices.Contains(asks, a) {
				asks = append(asks, a)
			}
		}
	}
	if asks == nil {
		return demoAsks
	}
	return asks
}

// probeExample sends packets from every pod to every other and outside.
func probeExample(t *testing.T, l *lab.Lab, topology *lab.Topology, s *spec.Spec, policies *policy.Model) {
	t.Helper()
	if err := l.SyncPodMTU(); err != nil {
		t.Fatal(err)
	}
	var vxlan uint16 // without a network block there is none
	if s.Network != nil {
		vxlan = s.Network.Backend.Port
	}
	w, err := l.Wire(vxlan)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, f := range spec.Families {
		if !slices.ContainsFunc(s.Nodes, func(n *spec.Node) bool { _, ok := n.Subnet(f); return ok }) {
			continue
		}
		m, err := measure(l, w, topology, s, policies, f, exampleAsks(s), probeTimeout)
		if err != nil {
			t.Fatal(err)
		}
		verdicts := map[bool]int{}
		for _, c := range m.cells {
			for _, a := range c.answers {
				verdicts[a.denied]++
			}
		}
		t.Logf("%v: %d allowed, %d denied", f, verdicts[false], verdicts[true])
		if verdicts[false] == 0 || len(s.Policies) > 0 && verdicts[true] == 0 {
			t.Errorf("%v: %d were allowed and %d denied", f, verdicts[false], verdicts[true])
		}
		for _, b := range m.broken() {
			t.Errorf("%v: %s", f, b)
		}
	}
}

// The demo as its user runs it, from a folder that has nothing to do with it.
func TestDemo(t *testing.T) {
	lab.Require(t)
	row := func(from string, cells ...string) string {
		line := fmt.Sprintf("  %-9s", from)
		for _, c := range cells {
			line += fmt.Sprintf("  %-6s", c)
		}
		return line + "\n"
	}
	var out bytes.Buffer
	cmd := polderCommand(t, t.TempDir(), "lab", "demo")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"Plan: ",
		"Apply complete. ",
		row("web-1", "bridge", "-", "direct", "direct", "vxlan", "vxlan", "NAT 192.0.2.11"),
		row("db-3", "vxlan", "vxlan", "vxlan", "vxlan", "-", "bridge", "NAT 2001:db8:2::13"),
		"No changes. Node n3 matches the spec.\n",
		"    + policy \"db\" { ingress 1 = allow 5432/tcp from app == 'web' }\n",
		row("db-2", "denied", "direct", "-", "bridge", "denied", "vxlan", "NAT 192.0.2.12"),
		"\n  The same over IPv6.\n",
		"Denied: 5432/tcp from endpoint.db-2 to endpoint.db-1\n",
		"Error: Check \"db is closed\" fails\n",
		"  dropped at its port on n1, and counted: spoof_ip 1\n",
		"n1# ip route del 10.244.3.0/24\n  put back after ",
		"n1# ip link del polder.1\n  put back after ",
		"n1# nft flush ruleset\n  put back after ",
		"Everything as promised, in ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if strings.Contains(out.String(), "\x1b[") {
		t.Error("the demo colours what is no terminal")
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// A promise that is not kept is told: here, masquerading that the spec has and
// the kernel lacks.
func TestMatrixTellsBrokenPromises(t *testing.T) {
	lab.Require(t)
	l, err := upExample("single-host")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := &app{streams: streams{out: t.Output(), err: t.Output()}}
	topology, s, policies, err := a.loadLab(labFile{
		path: filepath.Join("..", "..", "examples", "single-host", "single-host"+labSuffix),
		dir:  filepath.Join("..", "..", "examples", "single-host"),
	})
	if err != nil {
		t.Fatal(err)
	}
	script := "polder apply --auto-approve >/dev/null && nft delete table inet polder"
	if out, err := l.Node("n1").Command(context.Background(), "sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w, err := l.Wire(0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	// The outside answers to the pod's own address, which the router does not
	// know: the answer is lost.
	m, err := measure(l, w, topology, s, policies, spec.IPv4, demoAsks, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Join(m.broken(), "\n")
	if !strings.Contains(broken, "web to outside 203.0.113.99: udp was not answered") || strings.Contains(broken, "web to db") {
		t.Errorf("broken: %s", broken)
	}
	var table bytes.Buffer
	if err := m.write(&table, false); err != nil {
		t.Fatal(err)
	}
	want := "  from \\ to  db      web     outside\n" +
		"  db         -       bridge  direct\n" +
		"  web        bridge  -       direct\n"
	if table.String() != want {
		t.Errorf("table\n%s\nwant\n%s", table.String(), want)
	}
}

// What policies deny and the kernel lets through is told: here nobody enforces
// them any more.
func TestMatrixTellsBrokenPolicies(t *testing.T) {
	lab.Require(t)
	l, err := upExample("policy")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := &app{streams: streams{out: t.Output(), err: t.Output()}}
	f, err := findLabFile(filepath.Join("..", "..", "examples", "policy"))
	if err != nil {
		t.Fatal(err)
	}
	topology, s, policies, err := a.loadLab(f)
	if err != nil {
		t.Fatal(err)
	}
	script := "polder apply --auto-approve >/dev/null && nft flush ruleset"
	for _, n := range s.Nodes {
		if out, err := l.Node(n.Name).Command(t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	w, err := l.Wire(s.Network.Backend.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m, err := measure(l, w, topology, s, policies, spec.IPv4, []ask{database}, probeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	broken := m.broken()
	for _, from := range []string{"batch", "metrics", "db-2"} {
		if want := from + " to db-1 10.244.1.6: 5432/tcp arrived, and policies deny it"; !slices.Contains(broken, want) {
			t.Errorf("%q is not in\n%s", want, strings.Join(broken, "\n"))
		}
	}
	for _, b := range broken {
		if strings.HasPrefix(b, "web-1 to db-") {
			t.Errorf("%s", b)
		}
	}
}

// The commands of a lab in the background, as a user types them.
func TestLabCommands(t *testing.T) {
	lab.Require(t)
	dir, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	polder := func(want int, args ...string) string {
		t.Helper()
		cmd := polderCommand(t, dir, args...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("polder %s: status %d, want %d (%v)\n%s", strings.Join(args, " "), got, want, err, out)
		}
		return string(out)
	}
	says := func(got, want string) {
		t.Helper()
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	says(polder(1, "lab", "exec", "n1", "true"), "lab default is not up")
	says(polder(1, "lab", "up", "."), "holds 0 lab files")
	mistaken := filepath.Join(t.TempDir(), "mistaken"+labSuffix)
	if err := os.WriteFile(mistaken, []byte("link \"lan\" { mut = 1500 }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := polder(1, "lab", "up", mistaken)
	says(said, "   1: link \"lan\" { mut = 1500 }\n"+strings.Repeat(" ", 19)+"^^^\n")
	says(said, `Did you mean "mtu"?`)
	says(polder(1, "lab", "up", "single-host/polder.hcl"), "polder.hcl is no lab file")
	says(polder(0, "lab", "up", "single-host"), "polder lab exec n1 -- polder plan")
	defer polder(0, "lab", "down")
	says(polder(1, "lab", "up", "single-host"), "lab default is up already")
	says(polder(0, "lab", "up", "host-gw", "--name", "second"), "polder lab down --name second")
	defer polder(0, "lab", "down", "--name", "second")

	// A spec in /etc, which a lab covers with its own.
	if err := os.CopyFS("/etc/polder-test", os.DirFS(filepath.Join(dir, "single-host"))); err != nil {
		t.Fatal(err)
	}
	polder(0, "lab", "up", "/etc/polder-test", "--name", "third")
	says(polder(0, "lab", "exec", "--name", "third", "n1", "ls", "/etc/polder"), "polder.hcl")
	polder(0, "lab", "down", "--name", "third")

	// Neither --spec nor --node is needed, and flags are the program's own.
	says(polder(2, "lab", "exec", "n1", "--", "polder", "plan", "--detailed-exitcode"), "to add")
	says(polder(0, "lab", "exec", "n1", "--", "polder", "apply", "--auto-approve"), "Node n1 matches the spec")
	polder(0, "lab", "exec", "n1", "polder", "plan", "--detailed-exitcode")
	polder(2, "lab", "exec", "--name", "second", "n1", "--", "polder", "plan", "--detailed-exitcode")
}

// polderCommand is polder in a folder. The sandbox's own program is this test
// binary, which is polder when it is called so.
func polderCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := exec.LookPath("polder")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	return cmd
}

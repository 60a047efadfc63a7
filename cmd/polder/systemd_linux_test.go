package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
)

// The units.
const (
	unitFile     = "../../deploy/systemd/polder.service"
	bootUnitFile = "../../deploy/systemd/polder-boot.service"
)

// manager is what a service manager hears (sd_notify(3)).
type manager struct {
	t      *testing.T
	socket string
	lines  chan string
	heard  []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, socket: filepath.Join(t.TempDir(), "notify"), lines: make(chan string, 100)}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return // closed
			}
			for line := range strings.SplitSeq(string(b[:n]), "\n") {
				m.lines <- line
			}
		}
	}()
	return m
}

// await reads on until a line is heard that begins so.
func (m *manager) await(prefix string) {
	m.t.Helper()
	patience := time.After(30 * time.Second)
	for {
		select {
		case line := <-m.lines:
			m.heard = append(m.heard, line)
			if strings.HasPrefix(line, prefix) {
				return
			}
		case <-patience:
			m.t.Fatalf("nothing begins with %q, only %q", prefix, m.heard)
		}
	}
}

// start starts a program with this manager above it.
func (m *manager) start(n *lab.Namespace, argv ...string) *lab.Cmd {
	m.t.Helper()
	cmd := n.Command(m.t.Context(), argv...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.socket, "WATCHDOG_USEC=300000")
	cmd.Stdout, cmd.Stderr = m.t.Output(), m.t.Output()
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return cmd
}

// end ends a daemon as systemd does.
func (m *manager) end(cmd *lab.Cmd) {
	m.t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	m.await("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		m.t.Errorf("a daemon that was asked to end: %v", err)
	}
}

// singleNode is the node of a small lab, and its spec's folder.
func singleNode(t *testing.T) (*lab.Namespace, string) {
	t.Helper()
	lab.Require(t)
	l, err := upExample("single-host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Node("n1"), filepath.Join("..", "..", "examples", "single-host")
}

// inSync says by another process whether the node matches the spec.
func inSync(t *testing.T, n *lab.Namespace) {
	t.Helper()
	if out, err := n.Command(t.Context(), "polder", "plan", "--detailed-exitcode").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The service manager hears that the daemon is ready when the network is, and
// not before.
func TestServiceManagerIsTold(t *testing.T) {
	n, example := singleNode(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "edge.hcl")
	if err := os.WriteFile(file, []byte("cluster ="), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t)
	cmd := m.start(n, "polder", "run", "--spec", dir, "--listen", "9087")
	m.await("STATUS=no spec is in force; the spec's files have errors")
	m.await("WATCHDOG=1") // waiting for a spec is a way of life
	if slices.Contains(m.heard, "READY=1") {
		t.Error("it was ready without a spec")
	}
	if status, why := probe(t, n, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(why, "the files have errors") {
		t.Errorf("/readyz: %d %s", status, why)
	}
	good, err := filepath.Glob(filepath.Join(example, "*.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range good {
		if strings.HasSuffix(path, labSuffix) {
			continue
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, source, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.await("READY=1")
	inSync(t, n)
	for _, path := range []string{"/readyz", "/healthz", "/metrics"} {
		if status, body := probe(t, n, path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.await("RELOADING=1")
	m.await("MONOTONIC_USEC=")
	m.await("READY=1")
	m.await("WATCHDOG=1")
	m.end(cmd)
	inSync(t, n) // everything stays in place
}

// probe asks a daemon that listens on port 9087 of the loopback.
func probe(t *testing.T, n *lab.Namespace, path string) (status int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = n.Do(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:9087"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// directives are the lines of a unit's sections by name.
func directives(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			found[name] = value
		}
	}
	return found
}

// confined does to a program what the unit has systemd do, as far as that can be
// done without systemd: one capability, no way to gain more, and nothing to
// write to but the runtime and the state directory and the kernel's own file
// systems. The host's /var/lib is out of its sight.
const confined = `set -e
mount -t tmpfs tmpfs /var/lib
for dir in "/run/$1" "/var/lib/$1"; do
	mkdir -p "$dir"
	mount --bind "$dir" "$dir"
done
for at in /run /tmp /var/lib /; do
	if mountpoint -q "$at"; then mount -o remount,bind,ro "$at"; fi
done
for at in / /run /var/lib; do
	if touch "$at/probe" 2>/dev/null; then echo "$at is not read-only" >&2; exit 1; fi
done
exec setpriv --bounding-set="-all,$2" --inh-caps=-all --no-new-privs --reset-env sh -e -c '
	export NOTIFY_SOCKET="$1" PATH="$2" STATE_DIRECTORY="$3"
	grep -q "^CapEff:[[:space:]]*0000000000001000$" /proc/self/status # CAP_NET_ADMIN
	eval "$4"' sh "$NOTIFY_SOCKET" "$PATH" "/var/lib/$1" "$3"`

// confine starts a shell command within the limits of the units.
func (m *manager) confine(n *lab.Namespace, command string) *lab.Cmd {
	m.t.Helper()
	unit, boot := directives(m.t, unitFile), directives(m.t, bootUnitFile)
	caps := strings.ReplaceAll(strings.ToLower("+"+unit["CapabilityBoundingSet"]), "cap_", "")
	if unit["ProtectSystem"] != "strict" || unit["NoNewPrivileges"] != "yes" || caps != "+net_admin" || unit["StateDirectory"] != unit["RuntimeDirectory"] {
		m.t.Fatalf("the unit is not what this test confines to: %v", unit)
	}
	for _, name := range []string{"ProtectSystem", "NoNewPrivileges", "CapabilityBoundingSet"} {
		if boot[name] != unit[name] {
			m.t.Errorf("%s is %s in one unit and %s in the other", name, unit[name], boot[name])
		}
	}
	return m.start(n, "unshare", "--mount", "sh", "-c", confined, "sh", unit["RuntimeDirectory"], caps, command)
}

// TestConfinedDaemon does a daemon's work within the limits of its unit.
func TestConfinedDaemon(t *testing.T) {
	n, _ := singleNode(t)
	m := newManager(t)
	cmd := m.confine(n, "exec polder run")
	m.await("READY=1")
	inSync(t, n)
	for _, command := range []string{"destroy", "apply"} {
		out, err := n.Command(t.Context(), "polder", command, "--auto-approve").CombinedOutput()
		if err != nil {
			t.Errorf("polder %s: %v\n%s", command, err, out)
		}
	}
	inSync(t, n)
	m.end(cmd)
}

// TestConfinedBoot loads what was kept, within the limits of both units.
func TestConfinedBoot(t *testing.T) {
	n, _ := singleNode(t)
	command, ok := strings.CutPrefix(directives(t, bootUnitFile)["ExecStart"], "/usr/local/bin/")
	if !ok {
		t.Fatalf("the unit runs %q", command)
	}
	rules := func() string {
		out, err := n.Command(t.Context(), "nft", "-s", "list", "ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out, err := n.Command(t.Context(), "polder", "apply", "--auto-approve").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := rules()
	cmd := newManager(t).confine(n, "polder apply --auto-approve; nft flush ruleset; "+command)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if after := rules(); after != before {
		t.Errorf("there were\n%s\nand are\n%s", before, after)
	}
}

// analyze runs systemd-analyze on a unit, with a program that is there.
func analyze(t *testing.T, file string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not at hand")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), filepath.Base(file))
	text = []byte(strings.ReplaceAll(string(text), "/usr/local/bin/polder", self))
	if err := os.WriteFile(unit, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", append(args, unit)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestUnitsAreValid(t *testing.T) {
	for _, file := range []string{unitFile, bootUnitFile} {
		if out := analyze(t, file, "verify"); strings.Contains(out, filepath.Base(file)) {
			t.Error(out)
		}
	}
}

// The manual gives the exposure that systemd computes. It differs between
// versions of systemd, which check different things.
func TestUnitExposure(t *testing.T) {
	manual, err := os.ReadFile("../../docs/daemon.md")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`exposure of ([0-9.]+) \(systemd (\d+)\)`).FindStringSubmatch(string(manual))
	got := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(analyze(t, unitFile, "security", "--offline=true"))
	if said == nil || got == nil {
		t.Fatalf("the manual says %q, systemd %q", said, got)
	}
	version, err := exec.CommandContext(t.Context(), "systemd-analyze", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(version), "systemd "+said[2]+" ") && got[1] != said[1] {
		t.Errorf("the exposure is %s, the manual says %s", got[1], said[1])
	}
	limit, err := strconv.ParseFloat(said[1], 64)
	exposure, wrong := strconv.ParseFloat(got[1], 64)
	if err := errors.Join(err, wrong); err != nil || exposure > limit+1 {
		t.Errorf("%v: the exposure is %s", err, got[1])
	}
}

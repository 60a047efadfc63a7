package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/spec"
)

// watched is a node with pods web and db, under the policies of a spec.
type watched struct {
	*lab.Lab
	t   *testing.T
	dir string
}

// seeingSpec has the policies behind the rest, from line 23 on.
const seeingSpec = `cluster = "seeing"
network {
  pod_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
}
node "n1" {
  addresses = ["192.0.2.11/24", "2001:db8::11/64"]
  subnets   = ["10.244.1.0/24", "fd00:10:244:1::/64"]
}
endpoint "web" {
  node      = "n1"
  interface = "veth-web"
  addresses = ["10.244.1.5", "fd00:10:244:1::5"]
  labels    = { app = "web" }
}
endpoint "db" {
  node      = "n1"
  interface = "veth-db"
  addresses = ["10.244.1.6", "fd00:10:244:1::6"]
  labels    = { app = "db" }
}
enforcement { log_drops = true }
`

const seeingPolicies = `
policy "db" {
  selector = "app == 'db'"
  ingress {
    action = "log"
    ports  = ["5432/tcp"]
    from { selector = "app == 'web'" }
    from { cidr = "10.244.0.0/16" }
  }
  ingress {
    action = "deny"
    ports  = ["7/udp"]
  }
  ingress {
    action = "allow"
    ports  = ["5432/tcp"]
  }
}
`

func newWatchedNode(t *testing.T) *watched {
	t.Helper()
	lab.Require(t)
	w := &watched{t: t, dir: t.TempDir()}
	// Whoever runs as another user in a namespace of the lab reads it, too.
	if err := os.Chmod(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.write(seeingPolicies)
	config, diags := spec.Load(w.dir, spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	topology, diags := lab.ParseTopology("test.lab.hcl", []byte(`
		link "lan" {}
		node "n1" {
		  link "lan" {}
		}`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var err error
	if w.Lab, err = lab.Up(t.Context(), topology, config.Spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.MountSpec(w.dir); err != nil {
		t.Fatal(err)
	}
	return w
}

// write writes the spec with other policies.
func (w *watched) write(policies string) {
	w.t.Helper()
	write(w.t, filepath.Join(w.dir, "polder.hcl"), seeingSpec+policies)
}

// polder runs a command on the node.
func (w *watched) polder(args ...string) []byte {
	w.t.Helper()
	out, err := w.Node("n1").Command(w.t.Context(), append([]string{"polder"}, args...)...).Output()
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// apply puts the spec into force. A command leaves no daemon behind.
func (w *watched) apply() {
	w.t.Helper()
	w.polder("apply", "--auto-approve")
	if err := w.SyncPodMTU(); err != nil {
		w.t.Fatal(err)
	}
}

// datagrams sends so many from web to db, on which nobody answers.
func (w *watched) datagrams(n int, to string, port uint16) {
	w.t.Helper()
	err := w.Pod("web").Do(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), port)))
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// connect opens a connection from web to db's port, and has it refused, or
// accepted, by db itself.
func (w *watched) connect(to string, port uint16) {
	w.t.Helper()
	err := w.Pod("web").Do(func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(netip.MustParseAddr(to), port).String(), 5*time.Second)
		if err == nil {
			return c.Close()
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return err
		}
		return nil // a RST is an answer
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// ping sends one echo request.
func (w *watched) ping(to string) {
	w.t.Helper()
	// It is denied: the exit status is 1.
	_ = w.Pod("web").Command(w.t.Context(), "ping", "-c1", "-W0.1", to).Run()
}

// watcher is `polder watch` that runs.
type watching struct {
	*lab.Cmd
	t     *testing.T
	lines chan string
}

func (w *watched) watch(args ...string) *watching {
	w.t.Helper()
	cmd := w.Node("n1").Command(w.t.Context(), append([]string{"polder", "watch"}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	greeting, err := bufio.NewReader(errs).ReadString('\n')
	if err != nil || !strings.HasPrefix(greeting, "Listening to NFLOG group ") {
		w.t.Fatalf("it says %q, %v", greeting, err)
	}
	p := &watching{cmd, w.t, make(chan string, 100_000)}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// next is the next line.
func (p *watching) next() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatal("it has ended")
		}
		return line
	case <-time.After(10 * time.Second):
		p.t.Fatal("no line came")
	}
	return ""
}

// wants that the next lines match.
func (p *watching) wants(patterns ...string) {
	p.t.Helper()
	for _, pattern := range patterns {
		if line := p.next(); !regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3}  ` + pattern + `$`).MatchString(line) {
			p.t.Errorf("got  %s\nwant %s", line, pattern)
		}
	}
}

// interrupt ends it as Ctrl-C does.
func (p *watching) interrupt() {
	p.t.Helper()
	if err := p.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	for line := range p.lines {
		p.t.Errorf("one more line: %s", line)
	}
	if err := p.Wait(); err != nil {
		p.t.Errorf("after an interrupt: %v", err)
	}
}

var watchedFamilies = []struct{ web, db, webText, dbText, icmp string }{
	{"10.244.1.5", "10.244.1.6", `10\.244\.1\.5`, `10\.244\.1\.6`, "icmp"},
	{"fd00:10:244:1::5", "fd00:10:244:1::6", `\[fd00:10:244:1::5\]`, `\[fd00:10:244:1::6\]`, "icmpv6"},
}

// Each packet that is logged is a line, of both families and of each protocol.
// A rule that logs matches these in two ways, and logs them once.
func TestWatch(t *testing.T) {
	w := newWatchedNode(t)
	w.apply()
	p := w.watch()
	const (
		log  = `log   policy db ingress 1 \(/etc/polder/polder\.hcl:25\)  `
		rule = `deny  policy db ingress 2 \(/etc/polder/polder\.hcl:31\)  `
		deny = `deny  tier default ingress of policy db \(/etc/polder/polder\.hcl:23\)  `
	)
	for _, f := range watchedFamilies {
		w.connect(f.db, 5432)
		p.wants(
			log+`web `+f.webText+`:\d+ -> db `+f.dbText+`:5432  tcp syn( ecn cwr)?`,
			log+`web `+f.webText+`:\d+ <- db `+f.dbText+`:5432  tcp rst ack`)
		w.datagrams(1, f.db, 7)
		p.wants(rule + `web ` + f.webText + `:\d+ -> db ` + f.dbText + `:7  udp`)
		w.datagrams(1, f.db, 9)
		p.wants(deny + `web ` + f.webText + `:\d+ -> db ` + f.dbText + `:9  udp`)
		w.ping(f.db)
		p.wants(deny + `web ` + strings.Trim(f.webText, `\[]`) + ` -> db ` + strings.Trim(f.dbText, `\[]`) + `  ` + f.icmp + ` echo-request`)
	}
	// Others may log to the group, too.
	cmd := w.Node("n1").Command(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(`
		add table inet other
		add chain inet other out { type filter hook output priority 0; }
		add rule inet other out udp dport 99 log prefix "mine: " group 87`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := w.Node("n1").Do(func() error {
		c, err := net.Dial("udp", "10.244.1.5:99")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	p.wants(`\?     no rule of the spec logs "mine: "  node n1 10\.244\.1\.1:\d+ -> web 10\.244\.1\.5:99  udp`)

	second, err := w.Node("n1").Command(t.Context(), "polder", "watch").CombinedOutput()
	if err == nil || !strings.Contains(string(second), "listening to NFLOG group 87 needs root (CAP_NET_ADMIN), and that nobody else listens to it") {
		t.Errorf("a second listener: %v\n%s", err, second)
	}
	p.interrupt()
}

// watchedLine is a line of `watch --json`.
type watchedLine struct {
	Type, Action, Tier, Policy, Direction string
	Rule                                  int
	Packet                                struct{ Protocol string }
	To                                    struct {
		Endpoint string
		Port     uint16
	}
}

// The kernel reports a flood at the rate of the spec, and counts all of it.
func TestWatchIsRateLimited(t *testing.T) {
	w := newWatchedNode(t)
	w.apply()
	p := w.watch("--json")
	const sent, rate = 1000, 10 // the default, which is the burst, too
	began := time.Now()
	w.datagrams(sent/2, "10.244.1.6", 9)
	w.datagrams(sent/2, "fd00:10:244:1::6", 9)
	took := time.Since(began)
	w.connect("10.244.1.6", 5432) // by another rule, which has a limit of its own
	most := 2*rate + int(took.Seconds()*rate)
	for n := 0; ; n++ {
		var line watchedLine
		text := p.next()
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if line.Action == "log" {
			if n < rate || n > most {
				t.Errorf("of %d packets in %v, %d are reported, want %d to %d", sent, took, n, rate, most)
			}
			t.Logf("%d packets in %v, %d reported", sent, took, n)
			break
		}
		if line.Type != "logged" || line.Action != "deny" || line.Tier != "default" || line.To.Endpoint != "db" || line.To.Port != 9 || line.Packet.Protocol != "udp" {
			t.Errorf("%s", text)
		}
	}
	if got := w.counters()["tier default ingress"].Packets; got != sent {
		t.Errorf("%d are counted, of %d", got, sent)
	}
}

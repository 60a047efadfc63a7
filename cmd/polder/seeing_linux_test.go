package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/nft"
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

// counters are those of `policy show --counters`, by "db ingress 2" and "tier
// default ingress".
func (w *watched) counters() map[string]nft.CounterValue {
	w.t.Helper()
	type counted struct{ Packets, Bytes uint64 }
	type rule struct {
		Number  int
		Counted *counted
	}
	var shown struct {
		Tiers []struct {
			Name     string
			Defaults []struct {
				Direction string
				Counted   *counted
			}
		}
		Policies []struct {
			Name            string
			Ingress, Egress []rule
		}
	}
	if err := json.Unmarshal(w.polder("policy", "show", "--counters", "--json"), &shown); err != nil {
		w.t.Fatal(err)
	}
	found := map[string]nft.CounterValue{}
	add := func(name string, c *counted) {
		if c != nil {
			found[name] = nft.CounterValue(*c)
		}
	}
	for _, t := range shown.Tiers {
		for _, d := range t.Defaults {
			add("tier "+t.Name+" "+d.Direction, d.Counted)
		}
	}
	for _, p := range shown.Policies {
		for _, r := range p.Ingress {
			add(fmt.Sprintf("%s ingress %d", p.Name, r.Number), r.Counted)
		}
		for _, r := range p.Egress {
			add(fmt.Sprintf("%s egress %d", p.Name, r.Number), r.Counted)
		}
	}
	return found
}

// nftCounters are the counters of policies that nft(8) lists.
func (w *watched) nftCounters() map[string]nft.CounterValue {
	w.t.Helper()
	out, err := w.Node("n1").Command(w.t.Context(), "nft", "-j", "list", "counters", "table", "inet", "polder").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	var listed struct {
		NFTables []struct {
			Counter *struct {
				Name           string
				Packets, Bytes uint64
			}
		}
	}
	if err := json.Unmarshal(out, &listed); err != nil {
		w.t.Fatal(err)
	}
	found := map[string]nft.CounterValue{}
	for _, o := range listed.NFTables {
		if o.Counter != nil && strings.HasPrefix(o.Counter.Name, "c_") {
			found[o.Counter.Name] = nft.CounterValue{Packets: o.Counter.Packets, Bytes: o.Counter.Bytes}
		}
	}
	return found
}

// packets are the rules that have counted any.
func packets(values map[string]nft.CounterValue) map[string]uint64 {
	found := map[string]uint64{}
	for name, v := range values {
		if v.Packets > 0 {
			found[name] = v.Packets
		}
	}
	return found
}

// A packet is counted by the rule that denied it and by no other one, and a
// counter outlives changes of all that is around its rule.
func TestCountersStay(t *testing.T) {
	w := newWatchedNode(t)
	w.apply()
	wants := func(when, want string) {
		t.Helper()
		if got := fmt.Sprint(packets(w.counters())); got != want {
			t.Errorf("%s: got %s, want %s", when, got, want)
		}
	}
	// The kernel answers some by itself: nothing is there before the first packet.
	w.datagrams(3, "10.244.1.6", 7)
	w.datagrams(2, "fd00:10:244:1::6", 7)
	wants("a rule denies", "map[db ingress 2:5]")
	w.datagrams(1, "10.244.1.6", 9)
	wants("no rule decides", "map[db ingress 2:5 tier default ingress:1]")
	w.connect("10.244.1.6", 5432) // SYN and RST
	wants("one logs and one allows", "map[db ingress 1:2 db ingress 2:5 db ingress 3:2 tier default ingress:1]")

	edited := seeingPolicies
	edit := func(what, old, text, want string) {
		t.Helper()
		if !strings.Contains(edited, old) {
			t.Fatalf("there is no %q", old)
		}
		edited = strings.Replace(edited, old, text, 1)
		w.write(edited)
		w.apply()
		wants(what, want)
	}
	edit("lines move", "\npolicy", "\n# A comment.\n\n\npolicy",
		"map[db ingress 1:2 db ingress 2:5 db ingress 3:2 tier default ingress:1]")
	edit("another policy comes, in front", "\npolicy \"db\"", "\npolicy \"a\" {\n  selector = \"all()\"\n  order = 1\n  ingress {\n    action = \"deny\"\n    ports = [\"5000/tcp\"]\n  }\n}\npolicy \"db\"",
		"map[db ingress 1:2 db ingress 2:5 db ingress 3:2 tier default ingress:1]")
	edit("a rule comes, in front", "  ingress {\n    action = \"log\"", "  ingress {\n    action = \"allow\"\n    ports = [\"6000/tcp\"]\n  }\n  ingress {\n    action = \"log\"",
		"map[db ingress 2:2 db ingress 3:5 db ingress 4:2 tier default ingress:1]")
	edit("a rule changes", `"7/udp"`, `"7/udp", "8/udp"`,
		"map[db ingress 2:2 db ingress 4:2 tier default ingress:1]")
	w.datagrams(4, "10.244.1.6", 8)
	wants("what it is now denies", "map[db ingress 2:2 db ingress 3:4 db ingress 4:2 tier default ingress:1]")
}

// lie has web send datagrams to db under an address of nobody's, in each family,
// and TCP to db from its middle.
func (w *watched) lie() {
	w.t.Helper()
	mac := func(pod string) spec.MAC {
		out, err := w.Pod(pod).Command(w.t.Context(), "cat", "/sys/class/net/eth0/address").Output()
		if err != nil {
			w.t.Fatal(err)
		}
		m, err := spec.ParseMAC(strings.TrimSpace(string(out)))
		if err != nil {
			w.t.Fatal(err)
		}
		return m
	}
	web, db := mac("web"), mac("db")
	frame := func(etherType uint16, p []byte) []byte { return packet.Ethernet(web, db, etherType, p) }
	addr := netip.MustParseAddrPort
	ack := make([]byte, 20)
	ack[0], ack[2], ack[3], ack[12], ack[13] = 0x80, 5432>>8, 5432&0xff, 5<<4, 0x10
	if err := w.Pod("web").Inject("eth0",
		frame(packet.EtherIPv4, packet.NewUDP(addr("10.244.1.9:9"), addr("10.244.1.6:9"), nil)),
		frame(packet.EtherIPv6, packet.NewUDP(addr("[fd00:10:244:1::9]:9"), addr("[fd00:10:244:1::6]:9"), nil)),
		frame(packet.EtherIPv4, packet.IP(addr("10.244.1.5:1").Addr(), addr("10.244.1.6:1").Addr(), packet.TCP, ack)),
	); err != nil {
		w.t.Fatal(err)
	}
}

// What is dropped by no policy is counted by its reason, in both tables, and the
// counters outlive changes of the policies.
func TestDropsByNoPolicyAreCounted(t *testing.T) {
	w := newWatchedNode(t)
	w.apply()
	shows := func(when string, want ...string) {
		t.Helper()
		_, section, _ := strings.Cut(string(w.polder("policy", "show", "--counters")), "\ndropped by no policy\n")
		// A pod may say something while it is no port yet.
		section = regexp.MustCompile(`(?m)^ {2}spoof_reserved .*\n`).ReplaceAllString(section, "")
		if got := strings.Fields(section); !slices.Equal(got, strings.Fields(strings.Join(want, " "))) {
			t.Errorf("%s:\n%s", when, section)
		}
	}
	w.connect("10.244.1.6", 5432) // the bridge knows them, and floods nothing
	w.lie()
	lies := []string{
		"spoof_ip              from an address that is not the endpoint's  (2 packets, 76 bytes)",
		"policy_no_connection  of no connection that policies could judge  (1 packet, 40 bytes)",
	}
	shows("after lies", lies...)
	w.write("")
	w.apply()
	w.write(seeingPolicies + "policy \"web\" {\n  selector = \"app == 'web'\"\n}\n")
	w.apply()
	// What judges connections was gone meanwhile.
	shows("after changes", lies[0])
	w.lie()
	lies[0] = strings.Replace(lies[0], "2 packets, 76", "4 packets, 152", 1)
	shows("after lies", lies...)
	w.write(seeingPolicies)
	w.apply()
	shows("after another change", lies...)
	if out := string(w.polder("policy", "show", "db", "--counters")); strings.Contains(out, "no policy") {
		t.Errorf("of one policy:\n%s", out)
	}
}

// What the daemon tells Prometheus is what nft(8) lists.
func TestMetricsOfPolicies(t *testing.T) {
	w := newWatchedNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	daemon := w.Node("n1").Command(ctx, "polder", "run", "--listen", "9087")
	daemon.Stderr = t.Output()
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("polder_ready 1")
	if err := w.SyncPodMTU(); err != nil {
		t.Fatal(err)
	}
	w.datagrams(30, "10.244.1.6", 7)
	w.datagrams(12, "fd00:10:244:1::6", 9)
	w.connect("fd00:10:244:1::6", 5432)
	w.lie() // the bridge knows both: it floods nothing
	scrape := w.scrape()
	for _, line := range []string{`polder_dropped_packets_total{reason="spoof_ip"} 2`, `polder_dropped_packets_total{reason="policy_no_connection"} 1`} {
		if !strings.Contains(scrape, line+"\n") {
			t.Errorf("it does not say %s", line)
		}
	}
	for _, series := range []struct {
		labels string
		want   uint64
	}{
		{`action="deny",direction="ingress",policy="policy db",rule="2",tier="default"`, 30},
		{`action="deny",direction="ingress",policy="",rule="",tier="default"`, 12},
		{`action="log",direction="ingress",policy="policy db",rule="1",tier="default"`, 2},
		{`action="allow",direction="ingress",policy="policy db",rule="3",tier="default"`, 2},
	} {
		if line := fmt.Sprintf("polder_policy_packets_total{%s} %d\n", series.labels, series.want); !strings.Contains(scrape, line) {
			t.Errorf("it does not say %s", line)
		}
	}
	var total, bytes, listed, listedBytes uint64
	for line := range strings.Lines(scrape) {
		var n float64
		if i := strings.LastIndex(line, " "); i > 0 {
			_, _ = fmt.Sscan(line[i:], &n) // of a comment, it is none
		}
		switch {
		case strings.HasPrefix(line, "polder_policy_packets_total{"):
			total += uint64(n)
		case strings.HasPrefix(line, "polder_policy_bytes_total{"):
			bytes += uint64(n)
		}
	}
	for _, v := range w.nftCounters() {
		listed, listedBytes = listed+v.Packets, listedBytes+v.Bytes
	}
	if total != listed || bytes != listedBytes || total == 0 {
		t.Errorf("it says %d packets of %d bytes, and nft %d of %d", total, bytes, listed, listedBytes)
	}
	// Where lines and numbers change, a count is told under the new number.
	w.write("\n" + strings.Replace(seeingPolicies, "  ingress {\n    action = \"deny\"", "  ingress {\n    action = \"allow\"\n    ports = [\"6000/tcp\"]\n  }\n  ingress {\n    action = \"deny\"", 1))
	w.until(`polder_policy_packets_total{action="deny",direction="ingress",policy="policy db",rule="3",tier="default"} 30`)
	cancel()
	_ = daemon.Wait() // it was killed
}

func (w *watched) scrape() string {
	w.t.Helper()
	out, err := w.Node("n1").Command(w.t.Context(), "curl", "-sS", "http://127.0.0.1:9087/metrics").Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// until waits until a scrape has a line.
func (w *watched) until(line string) {
	w.t.Helper()
	for range 200 {
		if strings.Contains(w.scrape(), "\n"+line+"\n") {
			return
		}
		if err := w.Node("n1").Command(w.t.Context(), "sleep", "0.05").Run(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Fatalf("no scrape says %s:\n%s", line, w.scrape())
}

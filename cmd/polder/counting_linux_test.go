package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

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

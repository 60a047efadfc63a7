package view

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/lab/packet"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/nft/nflog"
	"github.com/poldernet/polder/policy"
	"github.com/poldernet/polder/spec"
)

const loggedSpec = `
cluster = "edge"
node "n1" { addresses = ["192.0.2.11", "2001:db8::11"] }
endpoint "web-1" {
  node      = "n1"
  addresses = ["10.244.1.5", "fd00::5"]
}
endpoint "db-1" {
  node      = "n1"
  addresses = ["10.244.1.6", "fd00::6"]
  labels    = { app = "db" }
}
policy "db" {
  selector = "app == 'db'"
  ingress {
    action = "log"
  }
  ingress {
    action = "deny"
    ports  = ["5432/tcp"]
  }
}
`

// loggedModel writes the spec where its name is short, and reads it.
func loggedModel(t *testing.T) *policy.Model {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("polder.hcl", []byte(loggedSpec), 0o600); err != nil {
		t.Fatal(err)
	}
	_, m, diags := policy.Read("polder.hcl", spec.Inputs{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return m
}

// named is the name of the counter of the model that is chosen.
func named(t *testing.T, m *policy.Model, choose func(policy.Counter) bool) string {
	t.Helper()
	for name, c := range m.Counters() {
		if choose(c) {
			return name
		}
	}
	t.Fatal("there is no such counter")
	return ""
}

func ruleNamed(t *testing.T, m *policy.Model, number int) string {
	t.Helper()
	return named(t, m, func(c policy.Counter) bool { return c.Rule == number })
}

func TestLogged(t *testing.T) {
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	m := loggedModel(t)
	log, deny := ruleNamed(t, m, 1), ruleNamed(t, m, 2)
	other := named(t, m, func(c policy.Counter) bool { return c.Tier != nil && c.Direction == spec.Ingress })
	at := time.Date(2026, 11, 23, 12, 0, 1, 123_000_000, time.Local)
	ends := func(from, to string) (netip.AddrPort, netip.AddrPort) {
		return netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	}
	stranger, dns := ends("198.51.100.7:9", "10.244.1.6:53")
	web, db := ends("10.244.1.5:41812", "10.244.1.6:5432")
	web6, db6 := ends("[fd00::5]:41812", "[fd00::6]:5432")
	tcp := func(from, to netip.AddrPort, flags byte) []byte {
		b := make([]byte, 20)
		b[0], b[1], b[2], b[3] = byte(from.Port()>>8), byte(from.Port()), byte(to.Port()>>8), byte(to.Port())
		b[12], b[13] = 5<<4, flags
		return packet.IP(from.Addr(), to.Addr(), packet.TCP, b)
	}
	fragment := packet.NewUDP(web, db, nil)
	fragment[7] = 1
	var text, colour, lines bytes.Buffer
	for _, message := range []nflog.Message{
		{Prefix: log, Time: at, Payload: tcp(web, db, 2)},
		{Prefix: deny, Time: at, Payload: tcp(web6, db6, 2)},
		{Prefix: log + " reply", Time: at, Payload: tcp(db, web, 18)},
		{Prefix: other, Time: at, Payload: packet.NewUDP(stranger, dns, nil)},
		{Prefix: other, Time: at, Payload: packet.IP(netip.MustParseAddr("2001:db8::11"), db6.Addr(), packet.ICMPv6, packet.Echo(spec.IPv6, 1, 1, nil))},
		{Prefix: other, Time: at, Payload: packet.IP(web.Addr(), db.Addr(), packet.SCTP, packet.NewSCTPInit(1, 2, nil))},
		{Prefix: other, Time: at, Payload: packet.IP(web.Addr(), db.Addr(), packet.ICMP, []byte{3, 3})},
		{Prefix: other, Time: at, Payload: packet.IP(web.Addr(), db.Addr(), 47, nil)},
		{Prefix: other, Time: at, Payload: fragment},
		{Prefix: log, Time: at, Payload: tcp(web, db, 2)[:30]},
		{Prefix: "iptables reply", Payload: tcp(web, db, 2)},
		{Prefix: log, Time: at, Payload: []byte{0x45}},
	} {
		model := NewLogged(message, m.Counters(), m, at)
		write(t, &text, model, Text{})
		write(t, &colour, model, Text{Color: true})
		model.Time = model.Time.In(time.FixedZone("", 0)).Truncate(24 * time.Hour)
		if err := WriteJSON(&lines, model); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []uint32{0, 1, 17} {
		write(t, &text, NewMissed(n, at), Text{})
	}
	t.Chdir(filepath.Dir(testdata))
	golden(t, "logged.txt", text.Bytes())
	golden(t, "logged-colour.txt", colour.Bytes())
	golden(t, "logged.jsonl", lines.Bytes())
}

func write(t *testing.T, b *bytes.Buffer, model Printable, as Text) {
	t.Helper()
	if err := model.WriteText(b, as); err != nil {
		t.Fatal(err)
	}
}

func TestCounted(t *testing.T) {
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	m := loggedModel(t)
	other := named(t, m, func(c policy.Counter) bool { return c.Tier != nil && c.Direction == spec.Ingress })
	shown := NewPolicies(m.Tiers())
	shown.Count(m.Tiers(), map[string]nft.CounterValue{ruleNamed(t, m, 2): {Packets: 1, Bytes: 60}, other: {Packets: 1 << 40, Bytes: 1 << 60}, "c_gone": {}})
	var text, indented bytes.Buffer
	write(t, &text, shown, Text{})
	b, err := json.MarshalIndent(shown, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	indented.Write(b)
	t.Chdir(filepath.Dir(testdata))
	golden(t, "counted.txt", text.Bytes())
	golden(t, "counted.json", indented.Bytes())
}

package reconcile

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/poldernet/polder/overlay"
)

// world is a host's switches and ports, as far as memory has to do with them.
type world struct {
	sysctls map[string]string
	masters map[string]string
}

func (w world) clone() world { return world{maps.Clone(w.sysctls), maps.Clone(w.masters)} }

func (w world) equal(o world) bool {
	return maps.Equal(w.sysctls, o.sysctls) && maps.Equal(w.masters, o.masters)
}

func (w world) observe() overlay.State {
	s := overlay.NewState(0)
	s.Sysctls = maps.Clone(w.sysctls)
	for link, master := range w.masters {
		s.Ports[link] = overlay.Port{Master: master}
	}
	return s
}

// want is what a spec makes of it; the zero want is that of destroy.
type want struct {
	sysctls map[string]string
	bridge  string
	ports   []string
}

func (w want) desired() *overlay.Desired {
	d := &overlay.Desired{State: overlay.NewState(0), Declared: map[string]bool{}}
	maps.Copy(d.Sysctls, w.sysctls)
	for _, link := range w.ports {
		d.Ports[link] = overlay.Port{Master: w.bridge}
		d.Declared[link] = true
	}
	return d
}

// apply does what Applier.Apply does with memory, up to the operation at which
// it is killed; a negative number lets it come to its end.
func (w world) apply(t *rapid.T, m memory, wanted want, killed int) memory {
	desired, observed := wanted.desired(), w.observe()
	m.restore(desired, observed)
	// The bridges of the test are ours.
	for _, bridge := range []string{"cni0", "br9"} {
		l := overlay.Link{Name: bridge, Type: overlay.TypeBridge, Alias: "polder cluster=test"}
		observed.Links[bridge], desired.Links[bridge] = l, l
	}
	plan := overlay.Diff(desired, observed)
	if len(plan.Conflicts) > 0 {
		t.Fatalf("conflicts: %+v", plan.Conflicts)
	}
	m = m.remember(plan.Ops, desired.Owns)
	for i, op := range plan.Ops {
		if i == killed {
			return m
		}
		if path, _, after, ok := op.Sysctl(); ok {
			w.sysctls[path] = after
		}
		if link, _, after, ok := op.Enslaved(); ok {
			w.masters[link] = after
		}
	}
	return m.forget(desired, w.observe())
}

var (
	switches = []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth0/accept_ra"}
	links    = []string{"veth1", "veth2"}
)

func drawWant(t *rapid.T) want {
	w := want{sysctls: map[string]string{}, bridge: rapid.SampledFrom([]string{"cni0", "br9"}).Draw(t, "bridge")}
	for _, path := range switches {
		if rapid.Bool().Draw(t, path+" wanted") {
			w.sysctls[path] = rapid.SampledFrom([]string{"1", "2"}).Draw(t, path)
		}
	}
	for _, link := range links {
		if rapid.Bool().Draw(t, link+" wanted") {
			w.ports = append(w.ports, link)
		}
	}
	return w
}

func drawWorld(t *rapid.T) world {
	w := world{map[string]string{}, map[string]string{}}
	for _, path := range switches {
		w.sysctls[path] = rapid.SampledFrom([]string{"0", "1", "2"}).Draw(t, path+" before")
	}
	for _, link := range links {
		w.masters[link] = ""
	}
	return w
}

// TestMemoryRestores: after any specs one after another, each apply killed
// anywhere, destroy leaves everything as it was before the first, and nothing
// remembered.
func TestMemoryRestores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, m := drawWorld(t), newMemory()
		initial := w.clone()
		for range rapid.IntRange(1, 5).Draw(t, "applies") {
			m = w.apply(t, m, drawWant(t), rapid.IntRange(-1, 6).Draw(t, "killed after"))
		}
		m = w.apply(t, m, want{}, -1)
		if !w.equal(initial) {
			t.Fatalf("destroy leaves %v, and it was %v", w, initial)
		}
		if len(m.Sysctls)+len(m.Masters) > 0 {
			t.Fatalf("still remembered: %+v", m)
		}
	})
}

// TestMemoryLeavesToOthers: what somebody changed after us stays as it is.
func TestMemoryLeavesToOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, m := drawWorld(t), newMemory()
		m = w.apply(t, m, drawWant(t), -1)
		theirs := rapid.SampledFrom(switches).Draw(t, "switch")
		w.sysctls[theirs] = "7"
		w.masters["veth1"] = "docker0"
		m = w.apply(t, m, want{}, -1)
		if w.sysctls[theirs] != "7" || w.masters["veth1"] != "docker0" {
			t.Fatalf("destroy leaves %v", w)
		}
		if len(m.Sysctls)+len(m.Masters) > 0 {
			t.Fatalf("still remembered: %+v", m)
		}
	})
}

// TestAPortIsPutBackWhereABridgeIs: a bridge that is gone, or that the same plan
// deletes, takes no port back.
func TestAPortIsPutBackWhereABridgeIs(t *testing.T) {
	for before, c := range map[string]struct {
		bridge *overlay.Link // where the port was
		want   string
	}{
		"docker0": {&overlay.Link{Name: "docker0", Type: overlay.TypeBridge}, "docker0"},
		"gone0":   {nil, ""},
		"br9":     {&overlay.Link{Name: "br9", Type: overlay.TypeBridge, Alias: "polder cluster=test"}, ""},
	} {
		desired, observed := &overlay.Desired{State: overlay.NewState(0)}, overlay.NewState(0)
		observed.Ports["veth1"] = overlay.Port{Master: "cni0", Hairpin: true, Up: true}
		if c.bridge != nil {
			observed.Links[before], observed.Ports[before] = *c.bridge, overlay.Port{}
		}
		m := newMemory()
		m.Masters["veth1"] = remembered{Before: before, Ours: "cni0"}
		m.restore(desired, observed)
		if got := desired.Ports["veth1"]; got.Master != c.want || got.Hairpin {
			t.Errorf("a port that was %s's becomes %+v, want a port of %q", before, got, c.want)
		}
	}
}

// TestRememberOnlyForeign: what goes with our own links has no value to put
// back.
func TestRememberOnlyForeign(t *testing.T) {
	desired, observed := overlay.NewState(0), overlay.NewState(0)
	vtep := overlay.Link{Name: "polder.1", Type: overlay.TypeVXLAN, Alias: "polder cluster=test", Up: true}
	desired.Links["polder.1"], observed.Links["polder.1"] = vtep, vtep
	desired.Sysctls["net/ipv6/conf/polder.1/accept_ra"], observed.Sysctls["net/ipv6/conf/polder.1/accept_ra"] = "0", "1"
	desired.Ports["polder.1"], observed.Ports["polder.1"] = overlay.Port{}, overlay.Port{Master: "docker0"}
	d := &overlay.Desired{State: desired}
	plan := overlay.Diff(d, observed)
	if len(plan.Ops) != 2 {
		t.Fatalf("%d operations", len(plan.Ops))
	}
	if m := newMemory().remember(plan.Ops, d.Owns); len(m.Sysctls)+len(m.Masters) > 0 {
		t.Errorf("remembered: %+v", m)
	}
}

func TestAdvertisedKeepsWhatWasRaised(t *testing.T) {
	m := newMemory()
	for _, path := range []string{"net/ipv6/conf/eth0/accept_ra", "net/ipv6/conf/eth1/accept_ra", "net/ipv6/conf/gone/accept_ra", "net/ipv6/conf/all/forwarding", "net/ipv4/ip_forward"} {
		m.Sysctls[path] = remembered{Before: "1", Ours: "2"}
	}
	facts := overlay.Facts{Links: map[string]overlay.HostLink{"eth0": {}, "eth1": {}}, RADefaults: []string{"eth1"}}
	before := slices.Clone(facts.RADefaults)
	got := m.advertised(facts)
	slices.Sort(got.RADefaults)
	if want := []string{"eth0", "eth1"}; !slices.Equal(got.RADefaults, want) {
		t.Errorf("links that listen: %v, want %v", got.RADefaults, want)
	}
	if !slices.Equal(facts.RADefaults, before) {
		t.Errorf("what was read has become %v", facts.RADefaults)
	}
}

func TestMemoryRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	m, err := loadMemory(dir)
	if err != nil || len(m.Sysctls)+len(m.Masters) > 0 {
		t.Fatalf("of no file: %+v %v", m, err)
	}
	next := m.clone()
	next.Sysctls["net/ipv4/ip_forward"] = remembered{Before: "0", Ours: "1"}
	next.Masters["veth1"] = remembered{"", "br9", "cni0"}
	if err := next.saveOver(m, dir); err != nil {
		t.Fatal(err)
	}
	got, err := loadMemory(dir)
	if err != nil || !maps.Equal(got.Sysctls, next.Sysctls) || !maps.Equal(got.Masters, next.Masters) {
		t.Fatalf("%+v is read as %+v: %v", next, got, err)
	}
	if err := newMemory().saveOver(got, dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("a memory of nothing leaves %v: %v", left, err)
	}
}

// TestMemoryFileErrors: what is in the file decides over other people's values,
// so nothing is guessed.
func TestMemoryFileErrors(t *testing.T) {
	for content, want := range map[string]string{
		"":               "values from before polder are unknown",
		"{":              "values from before polder are unknown",
		"[]":             "values from before polder are unknown",
		`{"sysctls": 3}`: "values from before polder are unknown",
		`{"version": 0}`: "is of version 0, and this polder knows version 1",
		`{"version": 2}`: "is of version 2, and this polder knows version 1",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(memoryFile(dir), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadMemory(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), memoryFile(dir)) {
			t.Errorf("%q: error %v, want %s", content, err, want)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(memoryFile(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := loadMemory(dir); err == nil || !strings.HasPrefix(err.Error(), "reading what was remembered: ") {
		t.Errorf("a directory in the file's place: %v", err)
	}
}

// TestMemoryCannotBeKept: a state directory that cannot be written is an error,
// unless there is nothing new to write.
func TestMemoryCannotBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	m.Sysctls["net/ipv4/ip_forward"] = remembered{Before: "0", Ours: "1"}
	if err := m.saveOver(newMemory(), filepath.Join(file, "state")); err == nil || !strings.HasPrefix(err.Error(), "remembering: ") {
		t.Errorf("below a file: %v", err)
	}
	if err := m.saveOver(m.clone(), filepath.Join(file, "state")); err != nil {
		t.Errorf("with nothing new: %v", err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(memoryFile(dir), "occupied"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := m.saveOver(newMemory(), dir); err == nil {
		t.Error("over a directory: no error")
	}
}

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/e2e/process"
)

// fullDisk puts the state directory on a file system without room; room makes
// some.
const (
	fullDisk = "mkdir -p %[1]s; mount -t tmpfs -o size=32k tmpfs %[1]s; cat /dev/zero >%[1]s/ballast 2>/dev/null || true"
	room     = "rm %s/ballast"
)

// TestDaemonFullDisk: a daemon that can keep nothing in its state directory
// goes on repairing what is its own, does not touch what it could not put back,
// and says so. Once there is room it does the rest, and what it could not keep
// is kept.
func TestDaemonFullDisk(t *testing.T) {
	n := up(t, damagedCluster)
	dir := filepath.Join(n.dir, "n1")
	on := func(command string) string {
		return n.sh("n1", strings.ReplaceAll(strings.ReplaceAll(command, "%[1]s", dir), "%s", dir))
	}
	n.sh("n1", clearSwitches)
	before := n.sh("n1", switches)
	on(fullDisk)
	versions := editions(t, damagedCluster)
	d := n.build(damagedCluster).process("n1", versions[0].text)
	d.Start()

	// From nothing, without room.
	d.Says("the disk is full", func(m process.Metrics) bool { return m[`polder_failing_objects{kind="state directory"}`] == 1 })
	if now := n.sh("n1", switches); now != before {
		t.Errorf("changed without a record:\n%sinto\n%s", before, now)
	}
	n.until("n1", "ip route | grep -q 10.244.2.0/24")
	mark := d.Logbook.Mark()
	n.sh("n1", "ip route del 10.244.2.0/24")
	d.Await(mark, "a repair", func(l process.Line) bool { return l.Event == "changed" && l.Kind == "route" })

	on(room)
	d.Content("there is room")
	n.matches(d, versions[0].spec, "there is room")
	if now := n.sh("n1", switches); strings.Contains(now, "0\n") {
		t.Errorf("not all switches are set:\n%s", now)
	}
	d.Kill()

	// A spec that could not be kept is kept later, and is the one of a restart
	// that finds errors in the file.
	d.Start()
	d.Ready()
	on("cat /dev/zero >%s/ballast 2>/dev/null || true")
	d.Write(versions[1].text)
	n.matches(d, versions[1].spec, "a change of the spec on a full disk")
	d.Says("the disk is full", func(m process.Metrics) bool { return m[`polder_failing_objects{kind="state directory"}`] == 1 })
	on(room)
	d.Content("there is room again")
	d.Kill()
	d.Write("network {")
	n.sh("n1", "ip link del cni0")
	d.Start()
	d.Ready()
	n.matches(d, versions[1].spec, "a start with a broken spec")
	d.Kill()
	n.sh("n1", "umount "+dir)
}

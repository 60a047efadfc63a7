package e2e

import (
	"path/filepath"
	"strings"
	"testing"
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
	d.start()

	// From nothing, without room.
	d.says("the disk is full", func(m map[string]float64) bool { return m[`polder_failing_objects{kind="state directory"}`] == 1 })
	if now := n.sh("n1", switches); now != before {
		t.Errorf("changed without a record:\n%sinto\n%s", before, now)
	}
	n.until("n1", "ip route | grep -q 10.244.2.0/24")
	mark := d.log.mark()
	n.sh("n1", "ip route del 10.244.2.0/24")
	d.await(mark, "a repair", func(l logLine) bool { return l.Event == "changed" && l.Kind == "route" })

	on(room)
	d.content("there is room")
	d.settle(versions[0].spec, "there is room")
	if now := n.sh("n1", switches); strings.Contains(now, "0\n") {
		t.Errorf("not all switches are set:\n%s", now)
	}
	d.kill()

	// A spec that could not be kept is kept later, and is the one of a restart
	// that finds errors in the file.
	d.start()
	d.ready()
	on("cat /dev/zero >%s/ballast 2>/dev/null || true")
	d.write(versions[1].text)
	d.settle(versions[1].spec, "a change of the spec on a full disk")
	d.says("the disk is full", func(m map[string]float64) bool { return m[`polder_failing_objects{kind="state directory"}`] == 1 })
	on(room)
	d.content("there is room again")
	d.kill()
	d.write("network {")
	n.sh("n1", "ip link del cni0")
	d.start()
	d.ready()
	d.settle(versions[1].spec, "a start with a broken spec")
	d.kill()
	n.sh("n1", "umount "+dir)
}

package e2e

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
)

// A namespace has no wall clock of its own, and nobody may set the machine's for
// a test. What a Go program takes for the wall clock is what a function of the
// vDSO says, whose address is in a variable of the runtime (runtime,
// time_linux_amd64.s). In the daemon's memory that variable is made to lead by a
// few instructions that add to the time of CLOCK_REALTIME, and to no other.
// They stand in a function that only debuggers call.
const (
	clockVariable = "runtime.vdsoClockgettimeSym"
	clockRoom     = "runtime.debugCallV2"
)

// wallClock is that of a process.
type wallClock struct {
	t              *testing.T
	memory         *os.File
	variable, room int64
	original       uint64 // the vDSO's function
	jumps          int64
}

// newWallClock finds the wall clock of the daemon.
func newWallClock(d *process.Process) *wallClock {
	d.Helper()
	program, err := elf.Open(d.Argv[0])
	if err != nil {
		d.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	symbols, err := program.Symbols()
	if err != nil {
		d.Fatal(err)
	}
	c := &wallClock{t: d.T}
	for _, s := range symbols {
		switch s.Name {
		case clockVariable:
			c.variable = int64(s.Value)
		case clockRoom:
			c.room = int64(s.Value)
		}
	}
	if c.variable == 0 || c.room == 0 {
		d.Fatalf("%s has no symbols %s and %s", d.Argv[0], clockVariable, clockRoom)
	}
	if c.memory, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", d.Cmd.Process.Pid), os.O_RDWR, 0); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { _ = c.memory.Close() })
	word := make([]byte, 8)
	if _, err := c.memory.ReadAt(word, c.variable); err != nil {
		d.Fatal(err)
	}
	if c.original = binary.LittleEndian.Uint64(word); c.original == 0 {
		d.Skip("this machine's programs ask the kernel for the time, not the vDSO")
	}
	return c
}

// set makes the clock differ from the machine's by so much.
func (c *wallClock) set(offset time.Duration) {
	c.t.Helper()
	le := binary.LittleEndian
	code := []byte{0x85, 0xff, 0x75, 0x1c} // test edi,edi; jne to the last two: not CLOCK_REALTIME
	code = append(code, 0x56, 0x48, 0xb8)  // push rsi; mov rax, original
	code = le.AppendUint64(code, c.original)
	code = append(code, 0xff, 0xd0, 0x5e, 0x48, 0xb9) // call rax; pop rsi; mov rcx, offset
	code = le.AppendUint64(code, uint64(int64(offset/time.Second)))
	code = append(code, 0x48, 0x01, 0x0e, 0xc3, 0x48, 0xb8) // add [rsi], rcx, which is tv_sec; ret; mov rax, original
	code = le.AppendUint64(code, c.original)
	code = append(code, 0xff, 0xe0) // jmp rax
	// The former instructions may be running.
	c.jumps++
	at := c.room + 64*c.jumps
	for _, write := range []struct {
		b  []byte
		at int64
	}{{code, at}, {le.AppendUint64(nil, uint64(at)), c.variable}} {
		if _, err := c.memory.WriteAt(write.b, write.at); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestDaemonClockJumps sets the daemon's wall clock forth and back by hours and
// by years. It goes on: what it looks at every second is looked at, what waits
// for minutes is not done early, and repairs are as fast as ever.
func TestDaemonClockJumps(t *testing.T) {
	n, whole := wholeNode(t)
	text, _ := damagedCluster.text()
	d := n.build(damagedCluster).process("n1", text)
	d.Start()
	d.Ready()
	clock := newWallClock(d)
	const year = 365 * 24 * time.Hour
	for _, offset := range []time.Duration{time.Hour, -time.Hour, 10 * year, -10 * year, 0} {
		before := d.Content("the clock's last jump")
		clock.set(offset)
		mark := d.Logbook.Mark()
		n.sh("n1", "ip route del 10.244.3.0/24")
		began := time.Now()
		_, l := d.Await(mark, "the route", func(l process.Line) bool { return l.Event == "changed" && l.Kind == "route" })
		if moved := l.Time.Sub(began); (moved - offset).Abs() > time.Minute {
			t.Fatalf("the clock was to be set by %v, and it shows %v", offset, moved)
		}
		mark = d.Logbook.Mark()
		n.sh("n1", "echo 2 >/proc/sys/net/ipv6/conf/cni0/accept_ra") // which nobody is told of
		began = time.Now()
		_, polled := d.Await(mark, "the sysctl", func(l process.Line) bool { return l.Event == "changed" && l.Kind == "sysctl" })
		if took := max(l.Took, polled.Took); took < 0 || took > process.Endurance.Seconds() {
			t.Errorf("with the clock off by %v, it says that a repair took %v s", offset, took)
		}
		n.matches(d, n.spec, "a jump of the clock")
		after := d.Content("a jump of the clock")
		if more := after.Sum("polder_rounds_total", `"check"`) - before.Sum("polder_rounds_total", `"check"`); more > 0 {
			t.Errorf("with the clock off by %v, the slow reading was made %v times too soon", offset, more)
		}
		t.Logf("clock off by %v: the route is repaired after %.1f ms, the sysctl within %v", offset, 1000*l.Took, time.Since(began).Round(time.Millisecond))
	}
	if after := n.settled("n1"); after != whole {
		t.Errorf("the node is\n%s", difference(whole, after))
	}
}

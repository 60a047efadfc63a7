package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/poldernet/polder/internal/e2e/process"
	"github.com/poldernet/polder/spec"
)

// TestDaemonRewrites alternates the spec between good and broken, twenty times a
// second, in place and by rename, while the node is damaged. Repairs go on, by
// the last good one; nothing that both good ones want is taken away; and what
// the file says in the end is in force.
func TestDaemonRewrites(t *testing.T) {
	c := newCrew(t, damagedCluster)
	d := c.daemons["n1"]
	d.Content("the start")
	var streams []traffic // that n1's damage is no part of
	for _, f := range spec.Families {
		streams = append(streams, c.ping("p11", address(c.endpoint("p21"), f).String()))
	}
	mark, before := d.Logbook.Mark(), d.Metrics()
	stop := rewrite(d, c.editions)
	lasts, damages := 2*time.Second, 0
	if soaking(t) > 0 {
		lasts = 20 * time.Second
	}
	for began := time.Now(); time.Since(began) < lasts; damages++ {
		c.sh("n1", "ip route del 10.244.3.0/24; bridge fdb flush dev polder.1")
		c.until("n1", "ip route show 10.244.3.0/24 | grep -q nhid && bridge fdb show dev polder.1 | grep -q 192.0.3.13")
		d.Alive()
		flowAll(t, streams, 1)
	}
	writes := stop()
	d.Write(c.editions[1].text)
	c.at["n1"] = 1
	c.expectWhole("n1", "all that writing")
	after := d.Content("all that writing")
	sent := expectAll(t, streams)
	grown := func(name string, labels ...string) float64 {
		return after.Sum(name, labels...) - before.Sum(name, labels...)
	}
	t.Logf("%d writes: %.0f came into force, %.0f were refused; %d damages repaired meanwhile; %s",
		writes, grown("polder_specs_total"), grown("polder_specs_rejected_total"), damages, sent)
	if grown("polder_specs_total") < 2 || grown("polder_specs_rejected_total") < 2 || after["polder_spec_valid"] != 1 {
		t.Errorf("the daemon has not followed the file%s", d.Logbook.Tail())
	}
	lines, _, _ := d.Logbook.Since(mark)
	for _, l := range lines {
		// What the second spec has in addition goes with it.
		if l.Event == "changed" && l.Action == "delete" && (l.Kind == "route" || l.Kind == "link") && !strings.Contains(l.Name, "244.4.0") && !strings.Contains(l.Name, "244:4::") {
			t.Errorf("it took away what both want: %s", l.Text)
		}
	}
}

// rewrite writes good specs and broken ones over each other, until it is
// stopped.
func rewrite(d *process.Process, good [2]edition) (stop func() (writes int)) {
	done, ended := make(chan struct{}), make(chan int)
	go func() {
		tick := time.NewTicker(time.Second / 20)
		defer tick.Stop()
		for i := 0; ; i++ {
			text := good[i/2%2].text
			if i%2 == 1 {
				text = text[:len(text)*(i%7+1)/9] + "\nnode {" // torn, and never whole
			}
			write := process.ReplaceFile
			if i%3 == 0 {
				write = overwriteFile
			}
			if err := write(d.File, text); err != nil {
				d.Error(err)
			}
			select {
			case <-tick.C:
			case <-done:
				ended <- i + 1
				return
			}
		}
	}()
	return func() int {
		close(done)
		return <-ended
	}
}

// overwriteFile writes a file in place: who reads meanwhile sees a part of it.
func overwriteFile(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }

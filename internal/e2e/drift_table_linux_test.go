package e2e

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"
)

var driftTable = flag.String("drift", "", "measure how long repairs take, of polder and of flanneld, and write this document")

// TestDriftTable measures what TestDaemonRepairs and TestDaemonFollows assert,
// again and again, and flanneld beside it.
func TestDriftTable(t *testing.T) {
	if *driftTable == "" {
		t.Skip("run by `./task drift`")
	}
	doc := driftDocument{
		Date: time.Now().UTC().Format(time.DateOnly), Commit: output(t, "git", "log", "-1", "--format=%h"),
		Machine:  fmt.Sprintf("Linux %s, %d CPUs, %s", output(t, "uname", "-r"), runtime.NumCPU(), runtime.Version()),
		Patience: flannelPatience,
	}
	var repairs []repair
	t.Run("polder", func(t *testing.T) { repairs, doc.Conflict = measureRepairs(t) })
	flannel := make([]map[string][]time.Duration, len(flannelCases))
	for i, f := range flannelCases {
		flannel[i] = f.repairs(t, 3)
		doc.Flannel = append(doc.Flannel, f.name)
	}
	var told, polled []time.Duration
	for _, r := range repairs {
		row := driftRow{What: r.what, Did: strings.Join(slices.Sorted(maps.Keys(r.did)), ", "), spread: spreadOf(r.took)}
		for _, of := range flannel {
			row.Flannel = append(row.Flannel, flannelCell(of, r.what))
		}
		doc.Rows = append(doc.Rows, row)
		if r.polled {
			polled = append(polled, r.took...)
		} else {
			told = append(told, r.took...)
		}
	}
	doc.Told, doc.Polled = spreadOf(told), spreadOf(polled)
	if t.Failed() {
		return
	}
	text, err := template.ParseFiles("testdata/drift.md.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := text.Execute(&b, doc); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*driftTable, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// measureRepairs is polder's part.
func measureRepairs(t *testing.T) (all []repair, conflict spread) {
	const times, groups = 7, 1
	w := damagedCluster.watched(t)
	for _, x := range w.n.drifts() {
		many := times
		if len(x.commands) > 1 {
			many = groups
		}
		all = append(all, w.repaired(x, many))
	}
	var told []time.Duration
	for range times {
		told = append(told, w.conflict())
	}
	for _, m := range moves {
		w := m.watched(t)
		there, back := w.followed(m.move, times)
		all = append(all, there, back)
	}
	return all, spreadOf(told)
}

type driftDocument struct {
	Date, Commit, Machine string
	Patience              time.Duration
	Flannel               []string // names of its columns
	Rows                  []driftRow
	Told, Polled          spread // of what the kernel tells of, and of what polder has to look at
	Conflict              spread
}

type driftRow struct {
	What, Did string
	spread
	Flannel []string
}

// spread is of how long it took, in milliseconds.
type spread struct {
	N                int
	Median, P99, Max string
}

func spreadOf(took []time.Duration) spread {
	if len(took) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(took))
	at := func(share float64) string { return milliseconds(sorted[int(share*float64(len(sorted)-1))]) }
	return spread{len(sorted), at(0.5), at(0.99), at(1)}
}

func milliseconds(d time.Duration) string {
	if ms := float64(d.Microseconds()) / 1000; ms < 10 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprint(d.Round(time.Millisecond).Milliseconds())
}

// flannelCell says how long flanneld took, where it was asked.
func flannelCell(of map[string][]time.Duration, what string) string {
	took, asked := of[what]
	switch {
	case !asked:
		return ""
	case len(took) == 0:
		return "**not**"
	default:
		s := spreadOf(took)
		return s.Median + " (" + s.Max + ")"
	}
}

func output(t *testing.T, argv ...string) string {
	t.Helper()
	b, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		t.Fatalf("%v: %v", argv, err)
	}
	return strings.TrimSpace(string(b))
}

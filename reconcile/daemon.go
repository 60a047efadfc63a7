package reconcile

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/poldernet/polder/spec"
)

// DaemonOptions say what a daemon keeps true, and whom it tells.
type DaemonOptions struct {
	Source   Source
	Node     string
	StateDir string
	BootDir  string // "": no ruleset is kept for Boot
	// SysctlDir is where switches are written; "": /proc/sys.
	SysctlDir string
	// Cluster is what a spec names with its block kubernetes.
	Cluster func(*spec.Kubernetes) Cluster
	// Notify tells the service manager (sd_notify(3)); nil: there is none.
	Notify func(state string) error
	// Watchdog is how often the service manager wants to hear of us; 0: never.
	Watchdog time.Duration
}

// Daemon keeps the kernel as the spec says. All of its work is done by the one
// goroutine in Run; other methods may be called by any.
type Daemon struct {
	options   DaemonOptions
	source    specSource
	applier   *Applier
	journal   *Journal
	box       *mailbox
	requests  chan request
	stopped   chan struct{} // closed when Run returns
	condition atomic.Pointer[Condition]
	limiter   *rate.Limiter

	// Of the goroutine in Run:
	subscriptions []*subscription
	view          *view // what is known of the kernel; nil: nothing
	dirty         dirt  // what has to be read again
	cause         Cause // why there is a round to be made; "": there is none
	since         time.Time
	culprit       string    // who was seen to change what is ours
	settled       time.Time // when to make it
	crooked       []string  // containers' ports that are not as they should be
	ended         time.Time // when the last one did
	retries       retries
	unsettled     bool // the latest round left it to the next whether it is in sync
	relist        bool // what fails may be other than was published
	keeper        keeper
	config        *spec.Config // in force; nil: there is none
	unkept        *spec.Config // in force, but a restart would not find it; nil: it would
	now           Condition    // published at the end of each step
	sysctlsDue    time.Time
	checkDue      time.Time
	firewallsDue  time.Time
	foreign       bool // firewalls of others may have changed since they were looked for
	firewalls     []string
	named         *spec.Kubernetes // the cluster that is followed; nil: none
	leave         func()           // ends that
	cluster       Cluster          // nil: none is watched
	said          NodeState        // to it, last
	waiting       bool             // for the cluster to have told of everything
	expected      []arrival        // of whose pods the cluster has not told
	awaiting      []arrival        // that have been told of, and are to be answered
	told          string           // the latest status sent to the service manager
	pinged        time.Time
}

// Coalescing: a round begins when nothing has come for roundQuiet, or roundMost
// after the first of several. What came to policies alone is put into force without a
// reading, and does not wait if the last round ended roundMost ago: what follows it at
// once does.
const (
	roundQuiet = time.Millisecond
	roundMost  = 20 * time.Millisecond
)

// Where somebody fights with us over an object, rounds may take a third of the
// time in the long run, and before that counts, roundBurst. The limiter's tokens
// are microseconds.
const (
	roundShare = 333_000 // a second
	roundBurst = 3_000_000
)

// How often things are looked at of which the kernel does not tell.
const (
	sysctlsEvery   = time.Second
	firewallsEvery = 30 * time.Second
	checkEvery     = 5 * time.Minute // everything, although all changes are told of
)

// OpenDaemon opens a daemon for the calling thread's network namespace. The
// error is ErrBusy while another polder has it.
func OpenDaemon(o DaemonOptions) (*Daemon, error) {
	a, err := OpenApplier(Options{Node: o.Node, StateDir: o.StateDir, BootDir: o.BootDir, SysctlDir: o.SysctlDir})
	if err != nil {
		return nil, err
	}
	return newDaemon(o, o.Source, a, kernelStreams()), nil
}

func newDaemon(o DaemonOptions, source specSource, a *Applier, subscriptions []*subscription) *Daemon {
	if o.Notify == nil {
		o.Notify = func(string) error { return nil }
	}
	d := &Daemon{
		options: o, source: source, applier: a, subscriptions: subscriptions,
		journal: newJournal(), box: newMailbox(),
		requests: make(chan request), stopped: make(chan struct{}),
		limiter: rate.NewLimiter(roundShare, roundBurst),
		retries: retries{},
		keeper:  keeper{failed: retries{}},
		foreign: true,
		relist:  true,
		leave:   func() {},
		now: Condition{
			Node: o.Node, Started: time.Now(), Since: time.Now(), Spec: SpecCondition{Path: o.Source.Path},
			Counters: Counters{Changes: map[ChangeCount]uint64{}, Rounds: map[Cause]uint64{}},
		},
	}
	d.publish()
	return d
}

// Journal is what the daemon did and saw.
func (d *Daemon) Journal() *Journal { return d.journal }

// Condition is how the daemon stands.
func (d *Daemon) Condition() Condition { return *d.condition.Load() }

// Close gives up the lock and closes the handles. Everything in the kernel
// stays in place.
func (d *Daemon) Close() error { return d.applier.Close() }

// Run keeps the kernel as the spec says, until ctx ends. It is to be called on
// a thread of the network namespace in which the daemon was opened, and once.
// Nothing that fails ends it.
func (d *Daemon) Run(ctx context.Context) {
	defer close(d.stopped)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.journal.add(Event{Type: EventStarted})
	first := d.source.load(d.options.Node)
	var watch sync.WaitGroup
	watch.Go(func() { d.source.watch(ctx, d.options.Node, first.files, d.box) })

	for _, s := range d.subscriptions {
		if err := s.start(ctx, d.box); err != nil {
			d.journal.add(Event{Type: EventError, Err: err.Error()})
		}
	}
	defer func() {
		for _, s := range d.subscriptions {
			s.end()
		}
	}()
	d.adopt(first)
	d.because(CauseStart, everything, time.Now())
	d.checkDue = time.Now().Add(checkEvery)
	d.loop(ctx)

	cancel()
	d.leave()
	d.journal.add(Event{Type: EventStopping})
	d.notify("STOPPING=1")
	watch.Wait()
	d.keepLast()
}

// loop is the daemon's life.
func (d *Daemon) loop(ctx context.Context) {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.box.wake:
			d.open(d.box.take())
		case r := <-d.requests:
			r.do(ctx)
			d.publish() // who asked may look at once
			close(r.done)
		case <-alarm.C:
		}
		now := time.Now()
		d.resubscribe(ctx, now)
		d.look(ctx, now)
		due := d.due(now)
		if due {
			d.round(ctx)
		}
		d.keepRuleset(now)
		d.publish()
		if due {
			d.answer() // who has waited may look at once
		}
		alarm.Reset(time.Until(d.next()))
	}
}

// because notes that a round is to be made, and why.
func (d *Daemon) because(cause Cause, what dirt, since time.Time) {
	d.dirty = d.dirty.with(what)
	now := time.Now()
	if d.cause == "" {
		d.cause, d.since, d.settled = cause, since, now.Add(roundQuiet)
		if d.dirty == (dirt{policies: true}) && now.Sub(d.ended) >= roundMost {
			d.settled = now
		}
		return
	}
	d.cause = stronger(d.cause, cause)
	if since.Before(d.since) {
		d.since = since
	}
	if latest := d.since.Add(roundMost); d.settled.Before(latest) {
		d.settled = latest
		if quiet := now.Add(roundQuiet); quiet.Before(latest) {
			d.settled = quiet
		}
	}
}

// due says that it is time for a round.
func (d *Daemon) due(now time.Time) bool {
	if d.cause == "" || !d.working() || now.Before(d.settled) {
		return false
	}
	owed := -d.limiter.TokensAt(now)
	if owed > 0 {
		// A little more: what is rounded down is never over.
		d.settled = now.Add(time.Duration(owed/roundShare*float64(time.Second)) + time.Microsecond)
	}
	return owed <= 0
}

// next is when there is something to do although nothing happens.
func (d *Daemon) next() time.Time {
	at := time.Now().Add(checkEvery)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	for _, s := range d.subscriptions {
		sooner(s.next)
	}
	if d.options.Watchdog > 0 {
		sooner(d.pinged.Add(d.options.Watchdog / 3))
	}
	if !d.working() {
		return at
	}
	if d.outlived() && d.keeper.writing == nil {
		sooner(d.keeper.due)
	}
	sooner(d.checkDue)
	sooner(d.sysctlsDue)
	sooner(d.firewallsDue)
	if d.cause != "" {
		sooner(d.settled)
	} else {
		sooner(d.retries.next())
	}
	return at
}

// working says that there is a spec to be kept, that it is to be kept, and that it
// is known what there is beside it.
func (d *Daemon) working() bool {
	return d.applier.options.Spec != nil && d.now.Held == "" && !d.waiting
}

// causes are in the order in which one stands for the others.
var causes = []Cause{CauseStart, CauseCommand, CauseSpec, CauseCluster, CauseAttached, CauseDrift, CauseSysctl, CauseLost, CauseRetry, CauseCheck}

func stronger(a, b Cause) Cause {
	if slices.Index(causes, b) < slices.Index(causes, a) {
		return b
	}
	return a
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/poldernet/polder/cmd/polder/internal/conflist"
	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/metrics"
	"github.com/poldernet/polder/cmd/polder/internal/queue"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/cluster"
	"github.com/poldernet/polder/reconcile"
	"github.com/poldernet/polder/spec"
)

func newRunCommand(a *app) *cobra.Command {
	var r runner
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep this node as the spec says, for as long as it runs",
		Long: `run is the daemon: it makes the node match the spec and keeps it so. A change of
the spec's files is in force at once, and what somebody changes in polder's part
of the network is put back. An object that cannot be written is tried again, and
holds up no other. While the files have errors, the last good spec stays in force,
also across a restart.

Where the spec has a block kubernetes, nodes, namespaces, pods and NetworkPolicies
of that cluster count beside those of the files. Until all of them are known,
nothing in the kernel is changed; while the API server is away, what it told
last stays in force.

It logs each thing that it does on a line; where it writes more than 100 objects at
once, how many there are beyond these. It tells systemd how it stands where systemd
started it, and serves status, events, apply, destroy and release. SIGHUP has it read
the files at once, which it otherwise does when they change. SIGTERM and Ctrl-C end
it; everything in the kernel stays in place.

One daemon or command at a time changes a network namespace. The exit status is 0
when it was asked to end, and 1 if it could not begin.`,
		Example: `  polder run
  polder run --spec edge.hcl --node n1 --log-format json
  polder run --listen 9087
  polder run --kubeconfig /etc/kubernetes/polder.conf
  polder run --cni-conf-dir /etc/cni/net.d --cni-bin-dir /opt/cni/bin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context(), a) },
	}
	flags := cmd.Flags()
	flags.StringVar(&r.listen, "listen", "", "serve /metrics, /healthz and /readyz on `[ADDR:]PORT`; a port alone is of 127.0.0.1 (default off)")
	flags.StringVar(&r.cniConfDir, "cni-conf-dir", "", "tell container runtimes of the network by a list of CNI plugins in `DIR` (default not)")
	flags.StringVar(&r.cniBinDir, "cni-bin-dir", "", "install polder as a CNI plugin in `DIR`; with --cni-conf-dir (default not)")
	flags.StringVar(&r.cniName, "cni-name", conflist.DefaultName, "`NAME` of the network in that list, by which host-local knows what addresses are taken; k8s-pod-network on a node that was canal's")
	flags.StringVar(&r.sysctlDir, "sysctl-dir", "/proc/sys", "`DIR` in which sysctls are written; for containers, in which /proc/sys is read-only")
	flags.StringVar(&r.logFormat, "log-format", "text", "`FORMAT` of the log on standard error: text or json")
	flags.StringVar(&r.kubeconfig, "kubeconfig", "", "`FILE` of credentials for the cluster, instead of the one that the spec names")
	return cmd
}

// runner is the daemon's process: what stands around reconcile.Daemon.
type runner struct {
	listen     string
	logFormat  string
	kubeconfig string
	cniConfDir string
	cniBinDir  string
	cniName    string
	sysctlDir  string
	reserve    []byte // until the node is in sync; see startReserve
}

func (r *runner) run(ctx context.Context, a *app) (err error) {
	// What lives for months should be small rather than fast at its first plan.
	debug.SetGCPercent(daemonGCPercent)
	r.reserve = make([]byte, startReserve)
	// Without a reader of its log it works on. Go ends a process that writes to a
	// broken pipe on standard error, unless the signal is ignored (os/signal).
	signal.Ignore(syscall.SIGPIPE)
	options, err := r.options(a)
	if err != nil {
		return err
	}
	address, err := listenAddress(r.listen)
	if err == nil && r.cniBinDir != "" && r.cniConfDir == "" {
		err = errors.New("--cni-bin-dir goes with --cni-conf-dir")
	}
	if err == nil {
		err = conflist.CheckName(r.cniName)
	}
	if err != nil {
		return usageError{err, "polder run"}
	}
	log, err := a.logger(r.logFormat)
	if err != nil {
		return usageError{err, "polder run"}
	}
	// What client-go says beside the errors that it returns is of no use to users,
	// and is in another form.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	// Before the daemon takes anything: a SIGHUP would end the process otherwise.
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	namespace, err := control.Namespace()
	if err != nil {
		return err
	}
	if err := a.suitsNow(options.Source); err != nil {
		return err
	}
	d, err := reconcile.OpenDaemon(options)
	if err != nil {
		return a.busy(ctx, err)
	}
	defer closing(d, &err)
	commands, err := control.Listen(ctx, options.StateDir)
	if err != nil {
		return err
	}
	var scrapes net.Listener
	var counts *reconcile.Counts
	if address != "" {
		if counts, err = reconcile.OpenCounts(); err != nil {
			return errors.Join(err, commands.Close())
		}
		defer closing(counts, &err)
		if scrapes, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
			return errors.Join(fmt.Errorf("serving metrics: %w", err), commands.Close())
		}
	}
	process := view.Process{PID: os.Getpid(), Namespace: namespace, StateDir: options.StateDir, BootDir: options.BootDir}
	r.serve(ctx, log, d, options, process, listeners{commands, scrapes}, counts, reload)
	return nil
}

// listeners are what others reach the daemon by.
type listeners struct {
	commands net.Listener
	scrapes  net.Listener // nil: none are served
}

// daemonGCPercent is Go's own default, over that of main.
const daemonGCPercent = 100

// startReserve counts as heap that is in use, and nothing stands behind it, because
// nobody touches it. Garbage is collected when the heap has doubled. While a daemon
// begins there is little that stays: among 5,000 nodes it collected a dozen times, which
// took a fifth of the CPU time of the start, where now it does three times. A factor
// would do that as well, and let a large cluster's heap grow by as much.
const startReserve = 32 << 20

func (r *runner) options(a *app) (o reconcile.DaemonOptions, err error) {
	if o.Node, err = a.nodeName(); err != nil {
		return o, err
	}
	// Commands, which may be started elsewhere, name the same files otherwise.
	if o.Source.Path, err = filepath.Abs(a.specPath); err != nil {
		return o, err
	}
	if o.StateDir, err = filepath.Abs(a.stateDir); err != nil {
		return o, err
	}
	if o.BootDir, err = a.bootDirectory(); err != nil {
		return o, err
	}
	if r.kubeconfig != "" {
		if r.kubeconfig, err = filepath.Abs(r.kubeconfig); err != nil {
			return o, err
		}
	}
	o.Cluster = func(k *spec.Kubernetes) reconcile.Cluster { return r.cluster(o.Node, k) }
	o.SysctlDir = r.sysctlDir
	o.Source.Inputs = a.inputs()
	o.Source.Suits = suits(r.kubeconfig)
	o.Notify = notify
	if o.Watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		return o, fmt.Errorf("reading the watchdog's interval: %w", err)
	}
	return o, nil
}

// cluster is the one that a spec names.
func (r *runner) cluster(node string, k *spec.Kubernetes) reconcile.Cluster {
	named := *k
	named.Kubeconfig = cmp.Or(r.kubeconfig, named.Kubeconfig)
	return cluster.New(node, func() (*rest.Config, error) { return cluster.Credentials(&named) })
}

// suitsNow says before anything begins what a daemon would only log. Of a spec with
// errors it says nothing: the last good one may be in force.
func (a *app) suitsNow(source reconcile.Source) error {
	config, diags := spec.Load(source.Path, source.Inputs)
	if diags.HasErrors() {
		return nil
	}
	if diags = source.Suits(config.Spec); diags.HasErrors() {
		return errors.Join(a.printDiagnostics(config, diags), exitError)
	}
	return nil
}

// notify tells the service manager, where there is one (sd_notify(3)).
func notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// serve runs the daemon and all that lets others see it, until ctx ends.
func (r *runner) serve(ctx context.Context, log eventLog, d *reconcile.Daemon, o reconcile.DaemonOptions, process view.Process, l listeners, counts *reconcile.Counts, reload <-chan os.Signal) {
	attributes := []slog.Attr{
		slog.String("version", readVersion().Version), slog.Int("pid", os.Getpid()),
		slog.String("node", o.Node), slog.String("spec", o.Source.Path), slog.String("state_dir", o.StateDir),
	}
	if o.BootDir != "" {
		attributes = append(attributes, slog.String("boot_dir", o.BootDir))
	}
	if l.scrapes != nil {
		attributes = append(attributes, slog.String("listen", l.scrapes.Addr().String()))
	}
	log.LogAttrs(ctx, slog.LevelInfo, "polder runs", attributes...)

	meters := metrics.New(d, counts, readVersion().Version)
	// The daemon does not wait for the log.
	unlogged := queue.New[reconcile.Event]()
	d.Journal().Each(func(e reconcile.Event) {
		if e.Type == reconcile.EventReady {
			r.reserve = nil
		}
		meters.Observe(e)
		if unlogged.Len() < logBacklog {
			unlogged.Put(e)
		}
	})
	// What serves ends after the daemon, so that its last words are heard.
	after, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	serve := func(what string, part func(context.Context) error) {
		parts.Go(func() {
			if err := part(after); err != nil {
				log.Error("stopped", "part", what, "err", err)
			}
		})
	}
	parts.Go(func() { logEvents(log, unlogged.Batches()) })
	serve("control socket", func(ctx context.Context) error {
		return control.NewServer(d, d.Journal(), process).Serve(ctx, l.commands)
	})
	if l.scrapes != nil {
		serve("metrics", func(ctx context.Context) error { return meters.Serve(ctx, l.scrapes) })
	}
	if r.cniConfDir != "" {
		parts.Go(func() {
			conflist.Folder{Conf: r.cniConfDir, Bin: r.cniBinDir, Name: r.cniName, StateDir: o.StateDir}.Keep(after, d, d.Journal(), log.Logger)
		})
	}
	serve("reload", func(ctx context.Context) error { return reloads(ctx, d, reload) })
	d.Run(ctx)
	unlogged.Close()
	stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		parts.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(endTimeout): // of a pipe that is full and that nobody reads
	}
}

// endTimeout is for the last lines of the log and the last answers.
const endTimeout = 2 * time.Second

// logBacklog is how many events wait for a log that is slow. Where all of thousands of
// peers fail, there are tens of thousands within a second or two.
const logBacklog = 100_000

// logEvents logs events, and how many are missing between two of them.
func logEvents(log eventLog, batches iter.Seq[[]reconcile.Event]) {
	var seen uint64
	for events := range batches {
		log.lines.hold()
		for _, e := range events {
			if skipped := e.Seq - seen - 1; skipped > 0 {
				log.Warn("events skipped", "count", skipped)
			}
			seen = e.Seq
			logEvent(log.Logger, e)
		}
		log.lines.release()
	}
}

// reloads has the daemon read the spec's files at each SIGHUP. They are watched;
// this is for file systems that report nothing.
func reloads(ctx context.Context, d *reconcile.Daemon, asked <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asked:
		}
		// Before it is ready, READY=1 would be a lie, and without that RELOADING=1
		// has no end.
		tell := notify
		if !d.Condition().Ready {
			tell = func(string) error { return nil }
		}
		err := tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
		// A plan begins with the files. If they have errors, the log says so.
		if _, planned := d.Plan(ctx, reconcile.ModeApply); errors.Is(planned, reconcile.ErrStopped) {
			return nil
		}
		if err = errors.Join(err, tell(daemon.SdNotifyReady)); err != nil {
			return fmt.Errorf("telling the service manager: %w", err)
		}
	}
}

// listenAddress completes an address to listen on: a port alone is one of the
// loopback, because nothing that the daemon serves there asks who is asking.
func listenAddress(given string) (string, error) {
	if given == "" {
		return "", nil
	}
	if !strings.Contains(given, ":") {
		given = ":" + given
	}
	host, port, err := net.SplitHostPort(given)
	if err != nil {
		return "", fmt.Errorf("--listen: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("--listen: %q is no port", port)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

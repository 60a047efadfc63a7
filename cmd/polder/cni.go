package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	cniversion "github.com/containernetworking/cni/pkg/version"

	"github.com/poldernet/polder/cmd/polder/internal/control"
	"github.com/poldernet/polder/cmd/polder/internal/view"
	"github.com/poldernet/polder/internal/attach"
	"github.com/poldernet/polder/reconcile"
)

// pluginTimeout is how long the plugin waits for the daemon: for longer than the daemon
// takes to say that it cannot do it, and why. The runtime tries again; the kubelet gives
// all plugins of a pod four minutes.
const pluginTimeout = control.AttachWithin + 5*time.Second

// asPlugin says that a container runtime runs polder as a CNI plugin: it sets the
// command in the environment, and gives no arguments.
func asPlugin() bool { return os.Getenv("CNI_COMMAND") != "" && len(os.Args) == 1 }

// pluginMain serves one command of CNI's, and returns the exit status.
func pluginMain(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	p := plugin{ctx}
	failed := skel.PluginMainFuncsWithError(
		skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.sweep, Status: p.status},
		cniversion.VersionsStartingFrom("0.3.1"), "polder as a CNI plugin")
	if failed == nil {
		return 0
	}
	if err := failed.Print(); err != nil {
		return fail(os.Stderr, err)
	}
	return int(exitError)
}

// plugin is the end of a chain of plugins: it tells the daemon what the others have
// made.
type plugin struct{ ctx context.Context }

// pluginConfig is polder's part of a conflist.
type pluginConfig struct {
	types.PluginConf
	StateDir string `json:"stateDir"` // of the daemon
}

// podArgs are what kubelets and others that know of pods say in CNI_ARGS.
type podArgs struct {
	types.CommonArgs
	//revive:disable:var-naming -- the field's name is the argument's
	K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID types.UnmarshallableString
}

// problem is an error as CNI has it.
func problem(code uint, summary string, err error) error {
	return types.NewError(code, summary, err.Error())
}

func readConfig(args *skel.CmdArgs) (*pluginConfig, error) {
	c := &pluginConfig{}
	err := json.Unmarshal(args.StdinData, c)
	if err != nil {
		return nil, problem(types.ErrDecodingFailure, "the network's configuration cannot be read", err)
	}
	if !filepath.IsAbs(c.StateDir) {
		return nil, problem(types.ErrInvalidNetworkConfig, "stateDir of polder is to be the daemon's --state-dir", fmt.Errorf("%q is no absolute path", c.StateDir))
	}
	return c, nil
}

// dial finds the daemon. The error has the code, or where there is no daemon that of
// a plugin that is to be tried again.
func (p plugin) dial(c *pluginConfig, none uint) (*control.Client, error) {
	client, _, err := control.Dial(p.ctx, c.StateDir)
	switch {
	case errors.Is(err, control.ErrNone):
		return nil, problem(none, "polder's daemon does not run: nothing is enforced for the container", fmt.Errorf("%w %s", err, c.StateDir))
	case err != nil:
		return nil, problem(types.ErrInternal, "polder's daemon cannot be asked", err)
	}
	return client, nil
}

// refused is an answer of the daemon's as CNI has it.
func refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, reconcile.ErrNotInForce), errors.Is(err, reconcile.ErrStopped), errors.Is(err, context.DeadlineExceeded):
		return problem(types.ErrTryAgainLater, "what is to be enforced for the container is not in the kernel", err)
	case errors.Is(err, reconcile.ErrNotAttached):
		return problem(types.ErrUnknownContainer, "polder does not know the container as it is", err)
	}
	return problem(types.ErrInternal, "polder's daemon cannot do it", err)
}

// attachment is what the other plugins and the runtime say of a container.
func attachment(args *skel.CmdArgs, c *pluginConfig) (attach.Attachment, error) {
	a := attach.Attachment{ID: idOf(args), Network: c.Name, Netns: args.Netns}
	if c.RawPrevResult == nil {
		return a, problem(types.ErrInvalidNetworkConfig, "polder goes last in a chain of plugins", errors.New("there is no prevResult"))
	}
	text, err := json.Marshal(c.RawPrevResult)
	if err == nil {
		a.Port, err = attach.ParseResult(text, args.IfName)
	}
	if err != nil {
		return a, problem(types.ErrInvalidNetworkConfig, "polder does not know what to enforce for the container", err)
	}
	// Others may be there that nobody has to understand.
	pod := podArgs{CommonArgs: types.CommonArgs{IgnoreUnknown: true}}
	if err := types.LoadArgs("IgnoreUnknown=1;"+args.Args, &pod); err != nil {
		return a, problem(types.ErrInvalidEnvironmentVariables, "CNI_ARGS cannot be read", err)
	}
	a.Pod = attach.Pod{Namespace: string(pod.K8S_POD_NAMESPACE), Name: string(pod.K8S_POD_NAME), UID: string(pod.K8S_POD_UID)}
	return a, nil
}

func idOf(args *skel.CmdArgs) attach.ID {
	return attach.ID{ContainerID: args.ContainerID, IfName: args.IfName}
}

// add returns when the container's policies and the identity of its port are in the
// kernel. It hands the result of the others on as it is.
func (p plugin) add(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	a, err := attachment(args, c)
	if err != nil {
		return err
	}
	if err := cniversion.ParsePrevResult(&c.PluginConf); err != nil {
		return problem(types.ErrDecodingFailure, "prevResult cannot be read", err)
	}
	if err := taken(p.ctx, a.Port); err != nil {
		return problem(types.ErrTryAgainLater, "an address of the container is another one's", err)
	}
	client, err := p.dial(c, types.ErrTryAgainLater)
	if err != nil {
		return err
	}
	err = client.Attach(p.ctx, a)
	if err := refused(errors.Join(err, client.Close())); err != nil {
		return err
	}
	return types.PrintResult(c.PrevResult, c.CNIVersion)
}

// check fails unless the daemon knows the container as it is.
func (p plugin) check(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	a, err := attachment(args, c)
	if err != nil {
		return err
	}
	client, err := p.dial(c, types.ErrTryAgainLater)
	if err != nil {
		return err
	}
	err = client.Attached(p.ctx, a)
	return refused(errors.Join(err, client.Close()))
}

// del succeeds also without a daemon. What it then remembers of the container harms
// nobody: it ends with the next one of its address, or with a GC.
func (p plugin) del(args *skel.CmdArgs) error {
	return p.tell(args, func(client *control.Client, _ *pluginConfig) error {
		return client.Detach(p.ctx, idOf(args))
	})
}

// sweep has the daemon forget the containers that the runtime does not know.
func (p plugin) sweep(args *skel.CmdArgs) error {
	return p.tell(args, func(client *control.Client, c *pluginConfig) error {
		s := control.Sweep{Network: c.Name}
		for _, v := range c.ValidAttachments {
			s.Valid = append(s.Valid, attach.ID{ContainerID: v.ContainerID, IfName: v.IfName})
		}
		return client.Sweep(p.ctx, s)
	})
}

// tell tells the daemon what it has to forget, if there is one.
func (p plugin) tell(args *skel.CmdArgs, do func(*control.Client, *pluginConfig) error) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	client, _, err := control.Dial(p.ctx, c.StateDir)
	if errors.Is(err, control.ErrNone) {
		return nil
	}
	if err == nil {
		err = errors.Join(do(client, c), client.Close())
	}
	if errors.Is(err, reconcile.ErrStopped) {
		return nil
	}
	return refused(err)
}

// status fails where an ADD would.
func (p plugin) status(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	client, err := p.dial(c, types.ErrPluginNotAvailable)
	if err != nil {
		return err
	}
	condition, err := client.Condition(p.ctx)
	if err = errors.Join(err, client.Close()); err != nil {
		return problem(types.ErrPluginNotAvailable, "polder's daemon cannot be asked", err)
	}
	return available(condition)
}

// available says why no containers can be attached; nil: they can. What limits those
// that are attached, as well, has a code of its own.
func available(c view.Condition) error {
	switch {
	case c.Held == reconcile.ModeDestroy:
		return problem(types.ErrLimitedConnectivity, "the node's network was destroyed", errors.New("it is held until polder apply"))
	case c.Held != "":
		return problem(types.ErrPluginNotAvailable, "polder keeps the node's network no more", fmt.Errorf("it is held since polder %s, until polder apply", c.Held))
	case c.Attachable:
		return nil
	case len(c.Failures)+len(c.Conflicts) > 0:
		return problem(types.ErrLimitedConnectivity, "the node's network is not as it should be", fmt.Errorf("%d objects fail, %d are in conflict; see polder status", len(c.Failures), len(c.Conflicts)))
	case c.Cluster != nil && !c.Cluster.Known:
		return problem(types.ErrPluginNotAvailable, "what the node's network should be is not known yet", errors.New("polder waits for the cluster"))
	}
	return problem(types.ErrPluginNotAvailable, "the node's network is not as it should be yet", errors.New("see polder status"))
}

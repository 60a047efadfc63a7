package kubetest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/poldernet/polder/internal/kubetest/program"
	"github.com/poldernet/polder/internal/lab"
)

// CNI attaches pods to a node as a container runtime does: by a list of plugins
// that run in the node's namespace.
type CNI struct {
	node    *lab.Namespace
	list    *libcni.NetworkConfigList
	plugins *libcni.CNIConfig
}

// NewCNI is the chain of a conflist on a node. Its plugins are bridge, loopback,
// host-local, portmap, and those in the folders.
func NewCNI(t testing.TB, node *lab.Namespace, conflist string, folders ...string) *CNI {
	t.Helper()
	for _, p := range []*program.Program{program.Bridge, program.Loopback, program.HostLocal, program.Portmap} {
		folders = append(folders, filepath.Dir(program.Need(t, p)))
	}
	list, err := libcni.NetworkConfFromBytes([]byte(conflist))
	if err != nil {
		t.Fatal(err)
	}
	// The namespace's /run is its own.
	return &CNI{node: node, list: list, plugins: libcni.NewCNIConfigWithCacheDir(folders, "/run/cni/cache", nil)}
}

// Attachment is a pod, as its runtime tells plugins of it.
type Attachment struct {
	Namespace, Name string
	UID             string         // "": the runtime does not say
	Sandbox         *lab.Namespace // the pod's own network namespace
	Ports           []PortMapping
}

// PortMapping is a port of the node that leads to one of the pod. Its names are
// those of the capability "portMappings".
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

func (a Attachment) runtime() *libcni.RuntimeConf {
	args := [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", a.Namespace}, {"K8S_POD_NAME", a.Name}}
	if a.UID != "" {
		args = append(args, [2]string{"K8S_POD_UID", a.UID})
	}
	return &libcni.RuntimeConf{
		ContainerID: a.Namespace + "-" + a.Name + a.UID, NetNS: a.Sandbox.Path(), IfName: "eth0", Args: args,
		CapabilityArgs: map[string]any{"portMappings": a.Ports},
	}
}

// Add attaches a pod. It says which addresses it got.
func (c *CNI) Add(ctx context.Context, a Attachment) (result *types100.Result, err error) {
	err = c.node.Do(func() error {
		r, err := c.plugins.AddNetworkList(ctx, c.list, a.runtime())
		if err != nil {
			return err
		}
		result, err = types100.NewResultFromResult(r)
		return err
	})
	return result, err
}

// Check asks the plugins whether the pod is attached as they left it.
func (c *CNI) Check(ctx context.Context, a Attachment) error {
	return c.node.Do(func() error { return c.plugins.CheckNetworkList(ctx, c.list, a.runtime()) })
}

// GC has the plugins forget all pods but these.
func (c *CNI) GC(ctx context.Context, valid ...Attachment) error {
	args := &libcni.GCArgs{}
	for _, a := range valid {
		r := a.runtime()
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: r.ContainerID, IfName: r.IfName})
	}
	return c.node.Do(func() error { return c.plugins.GCNetworkList(ctx, c.list, args) })
}

// Status asks the plugins whether they could attach a pod.
func (c *CNI) Status(ctx context.Context) error {
	return c.node.Do(func() error { return c.plugins.GetStatusNetworkList(ctx, c.list) })
}

// Del detaches a pod.
func (c *CNI) Del(ctx context.Context, a Attachment) error {
	return c.node.Do(func() error { return c.plugins.DelNetworkList(ctx, c.list, a.runtime()) })
}

// Package program has the programs of others that tests run: Kubernetes' API
// server with etcd, flanneld, CNI plugins, kustomize. Each is built from a modfile in the
// folder above, so that what it needs is not in polder's go.mod, by `go tool`,
// which keeps it in Go's build cache. Only tests and their tasks use the
// package.
package program

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// A Program is one that tests run.
type Program struct {
	Name    string
	Task    string // that builds it
	file    string // the name that Go gives it
	pkg     string
	modfile string
	cgo     bool
	// require is the environment variable that, with the value "require", makes
	// tests fail which the program is missing to.
	require string
}

// The programs. Those of `./task peers` are there whenever all tests are run,
// because `./task test` builds them first.
var (
	Etcd      = &Program{Name: "etcd", Task: "peers", file: "server", pkg: "go.etcd.io/etcd/server/v3", modfile: "etcd.mod", require: "POLDER_KERNEL"}
	Flannel   = &Program{Name: "flanneld", Task: "peers", file: "flannel", pkg: "github.com/flannel-io/flannel", modfile: "flannel.mod", cgo: true /* its UDP backend */, require: "POLDER_KERNEL"}
	APIServer = &Program{Name: "kube-apiserver", Task: "test:kube", file: "kube-apiserver", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", modfile: "apiserver.mod", require: requireEnv}
	Kustomize = &Program{Name: "kustomize", Task: "test:kube", file: "kustomize", pkg: "sigs.k8s.io/kustomize/kustomize/v5", modfile: "kustomize.mod", require: requireEnv}
	Bridge    = plugin("main/bridge")
	Loopback  = plugin("main/loopback")
	HostLocal = plugin("ipam/host-local")
	Portmap   = plugin("meta/portmap")
)

// All are the programs, in the order in which it is best to build them.
var All = []*Program{Etcd, Flannel, Bridge, Loopback, HostLocal, Portmap, Kustomize, APIServer}

// requireEnv is for what `./task test` does not build.
const requireEnv = "POLDER_KUBE"

func plugin(name string) *Program {
	file := path.Base(name)
	return &Program{
		Name: "CNI plugin " + file, Task: "test:kube", file: file, pkg: "github.com/containernetworking/plugins/plugins/" + name,
		modfile: "cni.mod", require: requireEnv,
	}
}

// Build builds the program unless it is built.
func (p *Program) Build(ctx context.Context) error {
	place, err := locate(ctx)
	if err != nil {
		return err
	}
	// -n prints where the program lies and does not run it.
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile="+filepath.Join(folder, p.modfile), "-n", p.pkg)
	cmd.Dir = place.module
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+p.cgoEnabled(), "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", p.pkg, err, out)
	}
	return nil
}

func (p *Program) cgoEnabled() string {
	if p.cgo {
		return "1"
	}
	return "0"
}

// folder holds the modfiles, in polder's module.
const folder = "internal/kubetest"

// place is where things are on this machine.
type place struct{ module, cache string }

func locate(ctx context.Context) (place, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOMOD", "GOCACHE")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return place{}, fmt.Errorf("go env: %w\n%s", err, errs.Bytes())
	}
	mod, cache, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return place{module: filepath.Dir(mod), cache: cache}, nil
}

package deploy

import (
	"archive/tar"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestImage builds the image and runs what is in it, with nothing else there.
func TestImage(t *testing.T) {
	if _, err := exec.LookPath("buildah"); err != nil {
		if os.Getenv("POLDER_KUBE") == "require" {
			t.Fatalf("this test needs buildah, which `./task tools` installs: %v", err)
		}
		t.Skipf("this test needs buildah, which `./task tools` installs: %v", err)
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(dir, "context", "polder"), "../cmd/polder")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	output(t, build)

	// Images of its own. vfs, because overlayfs is not everywhere.
	storage := filepath.Join(dir, "storage.conf")
	write(t, storage, `[storage]
driver = "vfs"
graphroot = "`+dir+`/graph"
runroot = "`+dir+`/run"
rootless_storage_path = "`+dir+`/graph"
`)
	t.Setenv("CONTAINERS_STORAGE_CONF", storage)
	// No registry is asked, or the build would fail: none is reached by this proxy.
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "http://192.0.2.1:9")
	}
	output(t, exec.CommandContext(t.Context(), "image/build", "localhost/polder:test", filepath.Join(dir, "context")))
	layout, root := filepath.Join(dir, "layout"), filepath.Join(dir, "root")
	output(t, exec.CommandContext(t.Context(), "buildah", "push", "localhost/polder:test", "oci:"+layout+":test"))

	image := open(t, layout)
	if got := strings.Join(image.Config.Entrypoint, " "); got != "/polder" || image.Config.Labels["org.opencontainers.image.title"] != "polder" {
		t.Errorf("%+v", image)
	}
	if files := image.unpack(t, root); strings.Join(files, " ") != "polder" {
		t.Errorf("the image has %q", files)
	}
	static(t, filepath.Join(root, "polder"))

	run := exec.CommandContext(t.Context(), "/polder", "version")
	run.Dir, run.Env = "/", []string{}
	run.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if os.Getuid() != 0 {
		run.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		run.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		run.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if out := output(t, run); !strings.HasPrefix(out, "polder ") {
		t.Errorf("it says %q", out)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// static fails if a program needs a loader or libraries.
func static(t *testing.T, file string) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	libraries, err := f.ImportedLibraries()
	if err != nil || len(libraries) > 0 {
		t.Errorf("it needs the libraries %q, %v", libraries, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it needs a loader")
		}
	}
}

// image is what is said of an image (OCI Image Format Specification).
type image struct {
	Config struct {
		Entrypoint []string
		Labels     map[string]string
	} `json:"config"`
	layers []string // files
}

type descriptor struct{ Digest string }

// open reads a folder in the OCI image layout, which has one image.
func open(t *testing.T, layout string) (i image) {
	t.Helper()
	var index struct{ Manifests []descriptor }
	read(t, filepath.Join(layout, "index.json"), &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%+v", index)
	}
	blob := func(d descriptor) string {
		return filepath.Join(layout, "blobs", strings.ReplaceAll(d.Digest, ":", "/"))
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	read(t, blob(index.Manifests[0]), &manifest)
	read(t, blob(manifest.Config), &i)
	for _, l := range manifest.Layers {
		i.layers = append(i.layers, blob(l))
	}
	return i
}

func read(t *testing.T, file string, v any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// unpack writes the files of an image into a new folder, and lists them.
func (i image) unpack(t *testing.T, root string) (names []string) {
	t.Helper()
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, layer := range i.layers {
		f, err := os.Open(layer)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		plain, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		files := tar.NewReader(plain)
		for {
			h, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
			if h.Typeflag != tar.TypeReg || !filepath.IsLocal(h.Name) || strings.Contains(h.Name, "/") {
				t.Fatalf("the image has %+v", h)
			}
			out, err := os.OpenFile(filepath.Join(root, h.Name), os.O_CREATE|os.O_WRONLY|os.O_EXCL, h.FileInfo().Mode())
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(out, files)
			if err := errors.Join(err, out.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return names
}

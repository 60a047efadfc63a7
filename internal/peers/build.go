package peers

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binary is the path of a program that a modfile of this folder lists as a
// tool. Go builds it once and keeps it in its build cache. Tests run in a
// sandbox that has no way out, so that what is missing there cannot be
// downloaded: `./task peers` does that. Without the program the test is
// skipped, or fails if the environment has POLDER_KERNEL=require.
func binary(t testing.TB, modfile, pkg string) string {
	t.Helper()
	path, err := build(t.Context(), modfile, pkg)
	switch {
	case err == nil:
		return path
	case os.Getenv("POLDER_KERNEL") == "require":
		t.Fatalf("this test needs %s; build it with `./task peers`: %s", pkg, err)
	default:
		t.Skipf("this test needs %s; build it with `./task peers`: %s", pkg, err)
	}
	return ""
}

// buildError is what the go command says.
type buildError string

func (e buildError) Error() string { return string(e) }

func build(ctx context.Context, modfile, pkg string) (string, error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	// -n prints where the program lies and does not run it.
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile="+filepath.Join("internal/peers", modfile), "-n", pkg)
	cmd.Dir = root
	// The same as in the Taskfile, or Go would build again. flannel's UDP
	// backend has C in it.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOPROXY=off", "GOFLAGS=")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", buildError(err.Error() + "\n" + errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// Package lab makes networks out of namespaces, for demos and tests: nodes,
// pods, routers and an outside host on links, as a small file describes them.
// It needs no root, and nothing of it outlives the process that made it, also
// when that process is killed.
//
// Everything happens in a sandbox, a process in user, network, mount, PID, UTS
// and IPC namespaces of its own (namespaces(7)). Enter makes it, by executing
// the same program again: a Go program has threads before main starts, and the
// kernel refuses unshare(CLONE_NEWUSER) to a process with more than one.
package lab

import (
	"os"
	"slices"
)

// requireEnv makes tests that need the kernel fail where they would be
// skipped, so that they do not rot unseen.
const requireEnv = "POLDER_KERNEL"

// binDir holds the program under the name polder, in the sandbox's PATH.
const (
	binDir      = "/etc/polder-lab/bin"
	programPath = binDir + "/polder"
)

// SpecDir is where polder looks for its spec by default.
const SpecDir = "/etc/polder"

// unavailable says why there is no sandbox. It is set by Main.
var unavailable = errNotEntered

// M is what Main uses of *testing.M.
type M interface{ Run() int }

// TB is what Require uses of testing.TB.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Main is called by TestMain in place of m.Run. It runs the tests in a sandbox
// and exits. Flags, standard streams, coverage and exit status pass through.
// Where there can be no sandbox the tests run outside of one, and Require says
// so to those that need it.
func Main(m M) {
	if slices.Contains(os.Args, "-test.fuzzworker") {
		// A worker talks to `go test -fuzz`, which is in the sandbox already,
		// over descriptors that would not survive another execution.
		unavailable = nil
		os.Exit(m.Run())
	}
	code, err := Enter(m.Run)
	if err != nil {
		unavailable = err
		code = m.Run()
	}
	os.Exit(code)
}

// Require skips the test where namespaces cannot be made. If the environment
// has POLDER_KERNEL=require, the test fails instead.
func Require(t TB) {
	t.Helper()
	switch {
	case unavailable == nil:
	case os.Getenv(requireEnv) == "require":
		t.Fatalf("this test needs network namespaces: %v", unavailable)
	default:
		t.Skipf("this test needs network namespaces: %v", unavailable)
	}
}

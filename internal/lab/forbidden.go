package lab

import (
	"errors"
	"fmt"
	"strings"
)

var errNotEntered = errors.New("TestMain does not call lab.Main")

// A knob is a sysctl that forbids user namespaces to ordinary users.
type knob struct {
	name   string
	denies func(value string) bool
	allow  string // the value that allows them
}

// knobs are asked in this order: the first that denies is the reason.
var knobs = []knob{
	// user_namespaces(7), all kernels. Some hardening guides set 0.
	{"user.max_user_namespaces", func(v string) bool { return v == "0" }, "15000"},
	{"user.max_net_namespaces", func(v string) bool { return v == "0" }, "15000"},
	// Debian's and Arch's own patch.
	{"kernel.unprivileged_userns_clone", func(v string) bool { return v == "0" }, "1"},
	// Ubuntu since 23.10. The namespace is made, but AppArmor leaves its
	// owner without capabilities, so that the first mount in it fails.
	{"kernel.apparmor_restrict_unprivileged_userns", func(v string) bool { return v == "1" }, "0"},
}

// forbidden turns the error of making the sandbox into one that says what to
// do. sysctl reads a value by its dotted name.
func forbidden(cause error, root bool, sysctl func(name string) (string, error)) error {
	for _, k := range knobs {
		v, err := sysctl(k.name)
		if err != nil {
			continue // this kernel does not have it
		}
		v = strings.TrimSpace(v)
		// Unprivileged restrictions do not bind root.
		if root && strings.Contains(k.name, "unprivileged") || !k.denies(v) {
			continue
		}
		return fmt.Errorf("namespaces are forbidden here (%w): sysctl %s is %s; "+
			"allow them with\n\n\tsudo sysctl -w %s=%s\n\nor run the same command with sudo", cause, k.name, v, k.name, k.allow)
	}
	if root {
		return fmt.Errorf("namespaces cannot be made here (%w): root lacks CAP_SYS_ADMIN, or a seccomp filter forbids it; "+
			"in a container, start it with\n\n\tdocker run --privileged", cause)
	}
	return fmt.Errorf("user namespaces cannot be made here (%w): no sysctl forbids them, so a seccomp filter, a chroot "+
		"or a masked /proc does, as in most containers; run the same command with sudo, or in a container started with\n\n\t"+
		"docker run --privileged", cause)
}

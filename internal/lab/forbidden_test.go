package lab

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestForbiddenNamesTheSysctl(t *testing.T) {
	permissive := map[string]string{
		"user.max_user_namespaces": "63459\n", "user.max_net_namespaces": "63459\n",
		"kernel.unprivileged_userns_clone": "1\n", "kernel.apparmor_restrict_unprivileged_userns": "0\n",
	}
	for _, c := range []struct {
		name, sysctl, value string
		root                bool
		want                string
	}{
		{"no namespaces", "user.max_user_namespaces", "0\n", false, "sudo sysctl -w user.max_user_namespaces=15000"},
		{"no network namespaces", "user.max_net_namespaces", "0\n", true, "sudo sysctl -w user.max_net_namespaces=15000"},
		{"Debian", "kernel.unprivileged_userns_clone", "0\n", false, "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"Ubuntu", "kernel.apparmor_restrict_unprivileged_userns", "1\n", false, "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"Ubuntu, root", "kernel.apparmor_restrict_unprivileged_userns", "1\n", true, "docker run --privileged"},
		{"a container", "", "", false, "seccomp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := forbidden(syscall.EPERM, c.root, func(name string) (string, error) {
				if name == c.sysctl {
					return c.value, nil
				}
				if v, ok := permissive[name]; ok {
					return v, nil
				}
				return "", os.ErrNotExist
			})
			if !strings.Contains(err.Error(), c.want) || !errors.Is(err, syscall.EPERM) {
				t.Errorf("%v\nwant %q in it, and the cause", err, c.want)
			}
			// Exactly one remedy, or people try the wrong one.
			if n := strings.Count(err.Error(), "sysctl -w"); n > 1 || n == 1 != strings.Contains(c.want, "sysctl -w") {
				t.Errorf("%d remedies by sysctl in %q", n, err)
			}
		})
	}
	// Kernels without the distributions' patches have neither file.
	err := forbidden(syscall.EPERM, false, func(string) (string, error) { return "", os.ErrNotExist })
	if strings.Contains(err.Error(), "sysctl -w") {
		t.Errorf("a sysctl that is not there was blamed: %v", err)
	}
}

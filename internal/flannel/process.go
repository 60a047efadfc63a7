package flannel

import "strings"

// remedyFor tells how to end a program that runs flannel, "" where it is none.
// k3s has flannel in itself, unless it was told not to: wrote says that
// something has written a subnet.env.
func remedyFor(program string, wrote bool) string {
	switch {
	case program == "flanneld" || program == "flannel":
		return "before `polder apply`: `systemctl disable --now flanneld`, or on Kubernetes delete flannel's DaemonSet"
	case strings.HasPrefix(program, "k3s") && wrote:
		return "before `polder apply`, restart k3s with --flannel-backend=none"
	}
	return ""
}

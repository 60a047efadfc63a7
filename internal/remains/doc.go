// Package remains finds what flannel and Felix, the policy half of canal, have
// left on a node that polder looks after, and removes it. What is whose is a
// function of values; only the kernel_*.go files look at processes.
package remains

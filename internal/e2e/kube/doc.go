// Package kube holds the tests of polder as a whole that need an API server or CNI
// plugins: daemons as processes, pods that are attached as a container runtime
// does, packets as packets.
package kube

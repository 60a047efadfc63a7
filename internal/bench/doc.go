// Package bench measures what polder costs beside what it replaces: the tools
// ip(8) and bridge(8) writing flannel's objects, and the kernel's own price,
// raw netlink of polder's objects. Figures are CPU time, user and system, of
// whole processes: on a shared machine wall time swings tenfold, CPU time by a
// fifth. Variants take turns within a round, each in a fresh namespace, and
// what is reported is the median of the ratios of the rounds.
//
// What the policies cost a packet is measured beside iptables, in the CPU time of
// the thread that sends it (see path).
package bench

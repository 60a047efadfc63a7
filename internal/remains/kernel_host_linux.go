package remains

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/poldernet/polder/internal/flannel"
)

// processes are those that run flannel or Felix in this network namespace. flanneld has
// no lock and no socket that tells of it: VXLAN's is the kernel's.
func processes() ([]Process, error) {
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(flannel.EnvFile)
	wrote := err == nil
	var found []Process
	for _, file := range comms {
		comm, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		name := string(bytes.TrimSpace(comm))
		of, remedy, ok := runs(name, wrote)
		if !ok {
			continue
		}
		dir := filepath.Dir(file)
		// Where that is not to be seen, it may be here.
		if there, err := os.Readlink(dir + "/ns/net"); err == nil && there != here {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		p := Process{Of: of, PID: pid, Program: name, Remedy: remedy}
		if of == Flannel {
			line, err := os.ReadFile(dir + "/cmdline")
			p.kubernetes = err == nil && ofKubernetes(name, strings.Split(string(line), "\x00"))
		}
		found = append(found, p)
	}
	return found, nil
}

// legacyTables are the tables that iptables-legacy has made in this network
// namespace. nftables does not know them, and the kernel tells their rules to
// no one but that program.
func legacyTables() (tables []string) {
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		// It is not there where the kernel has no such tables.
		if names, err := os.ReadFile("/proc/thread-self/net/" + file); err == nil {
			tables = append(tables, strings.Fields(string(names))...)
		}
	}
	return tables
}

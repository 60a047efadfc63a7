package bench

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
)

// iptables is a way of writing a firewall down for iptables.
type iptables struct {
	program     string // iptables-nft or iptables-legacy
	established bool   // what is open is accepted first of all
	sets        bool   // with ipset, where one rule names more than one address
}

func (i iptables) String() string {
	name := i.program
	if i.sets {
		name += "+ipset"
	}
	if i.established {
		name += ",established_first"
	}
	return name
}

// missing says what there is not of what the way needs; "" is nothing.
func (i iptables) missing(b *testing.B) string {
	b.Helper()
	ns, err := lab.NewNamespace("try")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	tries := [][]string{{i.program, "-S"}}
	if i.sets {
		tries = append(tries, []string{"ipset", "list"})
	}
	for _, argv := range tries {
		if out, err := ns.Command(context.Background(), argv...).CombinedOutput(); err != nil {
			return fmt.Sprintf("%s: %v %s", argv[0], err, bytes.TrimSpace(out))
		}
	}
	return ""
}

// iptables is the firewall by iptables. Of the pods that have the same rules b
// is the last.
func (f firewall) iptables(name string, way iptables) variant {
	return variant{name: name, family: f.family, rules: func(at site) error {
		sets, rules := f.written(at, way.sets)
		if way.established {
			rules = "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n" + rules
		}
		if err := feed(sets, "ipset", "restore"); err != nil {
			return err
		}
		return feed("*filter\n"+rules+"COMMIT\n", way.program+"-restore")
	}}
}

// written are the lines for `ipset restore` and for `iptables-restore`.
func (f firewall) written(at site, withSets bool) (string, string) {
	var sets, rules strings.Builder
	service := func(port int) string { return fmt.Sprintf("-p udp --dport %d -j ACCEPT", port) }
	for i := range f.elsewhere {
		fmt.Fprintf(&rules, "-A FORWARD -s %s -d %s %s\n", peer(i), other(i%otherPods), service(allowedPort))
	}
	var subjects []string
	for i := range f.others {
		subjects = append(subjects, "-d "+other(otherPods+i).String())
	}
	subjects = append(subjects, "-d "+at.pod("b").String())
	if withSets && f.others > 0 {
		fmt.Fprintf(&sets, "create subjects hash:ip maxelem %d\n", 2*len(subjects))
		for _, s := range subjects {
			fmt.Fprintf(&sets, "add subjects %s\n", strings.TrimPrefix(s, "-d "))
		}
		subjects = []string{"-m set --match-set subjects dst"}
	}
	for _, subject := range subjects {
		named := rule{f.elsewhere, 0}
		for k, r := range f.rules {
			var from []string
			for i := range r.members {
				from = append(from, peer(named.members+i).String())
			}
			for i := range r.prefixes {
				from = append(from, outside(named.prefixes+i).String())
			}
			named = named.and(r)
			if k == len(f.rules)-1 {
				from = append(from, at.pod("a").String())
			}
			if withSets && len(from) > 1 {
				kind := "hash:ip"
				if r.prefixes > 0 {
					kind = "hash:net"
				}
				fmt.Fprintf(&sets, "create in%d %s maxelem %d\n", k, kind, 2*len(from))
				for _, a := range from {
					fmt.Fprintf(&sets, "add in%d %s\n", k, a)
				}
				fmt.Fprintf(&rules, "-A FORWARD %s -m set --match-set in%d src %s\n", subject, k, service(f.port(k)))
				continue
			}
			for _, a := range from {
				fmt.Fprintf(&rules, "-A FORWARD -s %s %s %s\n", a, subject, service(f.port(k)))
			}
		}
	}
	for i := range min(f.elsewhere, otherPods) {
		fmt.Fprintf(&rules, "-A FORWARD -d %s -j DROP\n", other(i))
	}
	for _, subject := range subjects {
		fmt.Fprintf(&rules, "-A FORWARD %s -j DROP\n", subject)
	}
	return sets.String(), rules.String()
}

// feed runs a program with an input, if there is one, in the thread's namespace.
func feed(input string, argv ...string) error {
	if input == "" {
		return nil
	}
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}

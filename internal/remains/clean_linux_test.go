package remains

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/poldernet/polder/internal/lab"
	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/spec"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestCleanBesideOthers: who commits meanwhile is no hindrance, and where what was
// shown is no longer what there is, nothing is removed.
func TestCleanBesideOthers(t *testing.T) {
	lab.Require(t)
	ns, err := lab.NewNamespace("n1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	sh := func(command string) string {
		t.Helper()
		out, err := ns.Command(t.Context(), "sh", "-ec", command).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	sh(`iptables-nft -t nat -N FLANNEL-POSTRTG; iptables-nft -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
		iptables-nft -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE
		ip6tables-nft -N FLANNEL-FWD; ip6tables-nft -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
		nft 'add table ip6 flannel-ipv6; add chain ip6 flannel-ipv6 postrtg'`)
	var c *Cleaner
	err = ns.Do(func() (err error) {
		c, err = Open(specOf(spec.HostGW), "n1", func(context.Context) (int, error) { return 0, nil })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	plan := func() (p *Plan) {
		t.Helper()
		err := ns.Do(func() (err error) {
			p, err = c.Plan(t.Context())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	apply := func(p *Plan) (failures []error) {
		t.Helper()
		err := ns.Do(func() error {
			c.Apply(t.Context(), p, func(_ int, err error) {
				if err != nil {
					failures = append(failures, err)
				}
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return failures
	}
	shown := plan()
	want := []string{"chain ip nat FLANNEL-POSTRTG", "chain ip6 filter FLANNEL-FWD", "rule ip nat POSTROUTING 1", "rule ip6 filter FORWARD 1", "table ip6 flannel-ipv6"}
	if got := slices.Sorted(slices.Values(names(shown.Changes))); !slices.Equal(got, want) {
		t.Errorf("it shows %q, want %q", got, want)
	}

	// Somebody's rule is before flannel's now, and another one leads to its chain.
	sh("iptables-nft -t nat -I POSTROUTING -s 192.0.2.1 -j ACCEPT; ip6tables-nft -N MINE; ip6tables-nft -A MINE -j FLANNEL-FWD")
	before := sh("nft list ruleset")
	failures := apply(shown)
	if len(failures) != len(shown.Changes) || !errors.Is(failures[0], nft.ErrStale) {
		t.Errorf("it was shown otherwise, and the failures are %v", failures)
	}
	if now := sh("nft list ruleset"); now != before {
		t.Errorf("it was shown otherwise, and removed: before\n%s\nnow\n%s", before, now)
	}
	if shown = plan(); len(shown.Conflicts) != 1 || shown.Conflicts[0].Name != "ip6 filter MINE 1" || !strings.Contains(shown.Conflicts[0].Remedy, "ip6tables -t filter -D MINE 1") {
		t.Errorf("a rule leads to FLANNEL-FWD, and the conflicts are %+v", shown.Conflicts)
	}

	// kube-proxy has a table of its own.
	sh("nft add table ip kube-proxy")
	if failures := apply(shown); len(failures) > 0 {
		t.Errorf("it fails with %v", failures)
	}
	after := sh("nft list ruleset")
	for text, stays := range map[string]bool{"FLANNEL-POSTRTG": false, "flannel-ipv6": false, "192.0.2.1": true, "chain FLANNEL-FWD": true, "kube-proxy": true} {
		if strings.Contains(after, text) != stays {
			t.Errorf("%q stays: %t, want %t, in\n%s", text, !stays, stays, after)
		}
	}
}

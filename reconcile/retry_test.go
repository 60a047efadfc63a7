package reconcile

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/poldernet/polder/internal/change"
)

func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retries{}
		route := change.Change{Kind: "route", Name: "10.244.2.0/24"}
		link := change.Change{Kind: "link", Name: "cni0"}
		r.failed(link, errors.New("refused"), time.Now().Add(time.Hour))
		var waits []time.Duration
		for range 12 {
			r.failed(route, errors.New("refused"), time.Now())
			next := r.next()
			if !r.waits(route, time.Now()) {
				t.Fatal("a route that has just failed may be tried at once")
			}
			waits = append(waits, time.Until(next))
			elapse(time.Until(next))
			if r.waits(route, time.Now()) {
				t.Fatal("a route is to be tried, and waits all the same")
			}
		}
		for i, w := range waits {
			want := retryMost
			if i < 9 && retryFirst<<i < retryMost {
				want = retryFirst << i
			}
			if w != want {
				t.Errorf("attempt %d is followed by a wait of %v, want %v", i+1, w, want)
			}
		}
		if f := r.list(); len(f) != 2 || f[0].Change.Name != "cni0" || f[1].Attempts != 12 {
			t.Errorf("failures are %+v", f)
		}
		r.done(route)
		r.failed(route, errors.New("refused"), time.Now())
		if got := time.Until(r.list()[1].Next); got != retryFirst {
			t.Errorf("after a success the first wait is %v, want %v", got, retryFirst)
		}
	})
}

func TestRetriesKeepWhatIsStillWanted(t *testing.T) {
	r := retries{}
	for _, name := range []string{"a", "b"} {
		r.failed(change.Change{Kind: "route", Name: name}, errors.New("refused"), time.Now())
	}
	r.keep([]change.Change{{Kind: "route", Name: "b"}, {Kind: "route", Name: "c"}})
	if f := r.list(); len(f) != 1 || f[0].Change.Name != "b" {
		t.Errorf("failures are %+v, want b's alone", f)
	}
	r.rush(time.Now())
	if r.waits(change.Change{Kind: "route", Name: "b"}, time.Now()) {
		t.Error("what was rushed waits")
	}
}

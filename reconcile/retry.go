package reconcile

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/poldernet/polder/internal/change"
)

// An object that could not be written is tried again after retryFirst, then
// after twice as long each time, up to retryMost. There is no jitter: nobody
// shares the kernel's attention with other nodes.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 30 * time.Second
)

// Failure is an object that could not be written, for as long as that lasts.
type Failure struct {
	Change   change.Change
	Err      error
	Attempts int
	Since    time.Time // of the first attempt
	Next     time.Time // of the next one
}

// objectKey identifies an object across plans.
type objectKey struct{ kind, name string }

func keyOf(c change.Change) objectKey { return objectKey{c.Kind, c.Name} }

// retries are the objects that failed, and when they may be tried again. It is
// a value of the daemon's: what failed holds up nothing but itself.
type retries map[objectKey]*Failure

// failed notes an attempt that failed.
func (r retries) failed(c change.Change, err error, now time.Time) {
	f := r[keyOf(c)]
	if f == nil {
		f = &Failure{Since: now}
		r[keyOf(c)] = f
	}
	f.Change, f.Err = c, err
	wait := retryMost
	if f.Attempts < 9 { // beyond that the doubled wait is longer than the most
		wait = min(retryFirst<<f.Attempts, retryMost)
	}
	f.Attempts++
	f.Next = now.Add(wait)
}

// suspect notes an object that is to be tried again at once. If it fails then,
// that is not its first attempt.
func (r retries) suspect(c change.Change, err error, now time.Time) {
	r[keyOf(c)] = &Failure{Change: c, Err: err, Attempts: 1, Since: now, Next: now}
}

// done forgets an object that was written.
func (r retries) done(c change.Change) { delete(r, keyOf(c)) }

// keep forgets the objects that no plan wants to change any more: somebody else
// did it, or the spec no longer asks for it.
func (r retries) keep(wanted []change.Change) {
	if len(r) == 0 {
		return
	}
	still := make(map[objectKey]bool, len(r))
	for _, c := range wanted {
		still[keyOf(c)] = true
	}
	for key := range r {
		if !still[key] {
			delete(r, key)
		}
	}
}

// waits says that an object is not to be tried yet.
func (r retries) waits(c change.Change, now time.Time) bool {
	f := r[keyOf(c)]
	return f != nil && now.Before(f.Next)
}

// hold has nothing tried before a time: no round comes so far until then.
func (r retries) hold(until time.Time) {
	for _, f := range r {
		if f.Next.Before(until) {
			f.Next = until
		}
	}
}

// rush makes everything due: what was in the way may be gone.
func (r retries) rush(now time.Time) {
	for _, f := range r {
		f.Next = now
	}
}

// next is when the first object is due, and zero if nothing failed.
func (r retries) next() time.Time {
	var first time.Time
	for _, f := range r {
		if first.IsZero() || f.Next.Before(first) {
			first = f.Next
		}
	}
	return first
}

// list is every failure, by kind and name.
func (r retries) list() []Failure {
	all := make([]Failure, 0, len(r))
	for _, f := range r {
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(strings.Compare(a.Change.Kind, b.Change.Kind), strings.Compare(a.Change.Name, b.Change.Name))
	})
	return all
}

package reconcile

import (
	"sync"
	"time"

	"github.com/poldernet/polder/nft"
	"github.com/poldernet/polder/overlay"
)

// mailbox is where what happens waits until the daemon has time for it. Those
// who put something in never wait: an apply of thousands of changes is followed
// by as many notifications, and the kernel's buffer holds them for long enough
// only if somebody takes them out.
type mailbox struct {
	mu   sync.Mutex
	mail mail
	wake chan struct{} // of capacity 1: there is mail
}

// mail is what came since the mailbox was last emptied.
type mail struct {
	since   time.Time // when the first of it came
	network []overlay.Event
	commits []nft.Commit
	seen    uint64 // commits, of which those by others in a row are one
	lost    []loss
	// troubles are errors that somebody should hear of.
	troubles []error
	spec     *loaded // the latest
	kept     *keepResult
	update   Update
}

// loss says that a subscription ended, or skipped something.
type loss struct {
	subscription *subscription
	err          error
}

// mailLimit bounds the notifications that wait. Beyond it, to read everything
// is cheaper than to look at each.
const mailLimit = 200_000

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// put changes the mail, and says that there is some.
func (b *mailbox) put(change func(*mail)) {
	b.mu.Lock()
	if b.mail.since.IsZero() {
		b.mail.since = time.Now()
	}
	change(&b.mail)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the mailbox.
func (b *mailbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{}
	return m
}

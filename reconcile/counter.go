package reconcile

import (
	"context"
	"sync"

	"github.com/poldernet/polder/nft"
)

// Counts reads what the counters in our tables have counted. It has sockets of
// its own, so that nobody waits for what else is read or written, and may be
// used by any goroutine.
type Counts struct {
	mu     sync.Mutex
	reader *nft.Reader
}

// OpenCounts opens the sockets in the calling thread's network namespace.
func OpenCounts() (*Counts, error) {
	reader, err := nft.OpenReader()
	if err != nil {
		return nil, err
	}
	return &Counts{reader: reader}, nil
}

// Close closes the sockets.
func (c *Counts) Close() error { return c.reader.Close() }

// Read reads the counters, by name; one that is in both tables counts for the same
// reason in both. The kernel counts on meanwhile: they are not all of one instant.
func (c *Counts) Read(ctx context.Context) (map[string]nft.CounterValue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string]nft.CounterValue{}
	for _, id := range tables {
		values, err := c.reader.Counters(ctx, id)
		if err != nil {
			return nil, err
		}
		for name, v := range values {
			all[name] = nft.CounterValue{Packets: all[name].Packets + v.Packets, Bytes: all[name].Bytes + v.Bytes}
		}
	}
	return all, nil
}

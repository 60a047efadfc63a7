package reconcile

import (
	"context"
	"sync"

	"github.com/poldernet/polder/nft"
)

// Counts reads what the counters of policies have counted. It has sockets of
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

// Read reads the counters, by name. The kernel counts on meanwhile: they are not
// all of one instant.
func (c *Counts) Read(ctx context.Context) (map[string]nft.CounterValue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reader.Counters(ctx, nft.TableID{Family: nft.INet, Name: nft.TableName})
}

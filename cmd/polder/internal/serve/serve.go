// Package serve runs the daemon's HTTP servers.
package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// endTimeout is for answers under way, and streams, to deliver their last
// lines.
const endTimeout = time.Second

// Until serves until ctx ends, and then for as long as answers take that are
// under way, at most a second. An error before the end of ctx is why the server
// ended by itself.
func Until(ctx context.Context, server *http.Server, l net.Listener) error {
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		err := server.Shutdown(last)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		ended <- err
	})
	err := server.Serve(l)
	if stop() {
		return err
	}
	return <-ended
}

package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
)

// resources are those that are listed and watched.
var resources = []string{"nodes", "namespaces", "pods", "networkpolicies"}

// ear notes whether questions for what is watched are answered. client-go does not say:
// where a connection breaks, or none can be made in time, it gives out a watch that has
// ended before it began, as if all were well, and asks again after a while.
type ear struct {
	*Source
	next http.RoundTripper
}

func (e ear) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := e.next.RoundTrip(r)
	resource := path.Base(r.URL.Path)
	if r.Method != http.MethodGet || !slices.Contains(resources, resource) || r.Context().Err() != nil {
		return answer, err
	}
	switch {
	case err != nil:
		e.heard(resource, unanswered(r.URL.Host, err))
	case answer.StatusCode == http.StatusOK: // else it says why not, to who has asked
		e.heard(resource, nil)
	}
	return answer, err
}

// unanswered is why somebody who was asked does not answer, without what is another
// each time: the port at this end of a connection.
func unanswered(host string, err error) error {
	broken := new(net.OpError)
	switch {
	case !errors.As(err, &broken):
		return fmt.Errorf("asking %s: %w", host, err)
	case broken.Op == "dial": // which says whom
		return err
	}
	return fmt.Errorf("asking %s: %w", host, broken.Err)
}

package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/poldernet/polder/internal/lab"
)

// etcdAddr is etcd's default. Each etcd has a namespace of its own, and so
// each has the port to itself.
const etcdAddr = "127.0.0.1:2379"

// etcd is one etcd, without a network: nodes are connected to it over their
// loopback. What a test does to links, routes and rules between nodes does not
// come between them and their datastore.
type etcd struct {
	namespace *lab.Namespace
	process   *process
	client    http.Client
}

func startEtcd(t testing.TB, dir string) (*etcd, error) {
	program := binary(t, "flannel.mod", "go.etcd.io/etcd/server/v3")
	n, err := lab.NewNamespace("etcd")
	if err != nil {
		return nil, err
	}
	e := &etcd{namespace: n}
	e.client.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dial(ctx) },
	}
	// The namespace's /run is in memory.
	e.process, err = start(n, dir, program, "--data-dir", "/run/etcd", "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://"+etcdAddr, "--advertise-client-urls", "http://"+etcdAddr)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return e, nil
}

func (e *etcd) dial(ctx context.Context) (c net.Conn, err error) {
	err = e.namespace.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", etcdAddr)
		return err
	})
	return c, err
}

// serve makes etcd reachable in a namespace at the address where it is
// reachable in its own, until stop is called.
func (e *etcd) serve(ctx context.Context, n *lab.Namespace) (stop func() error, err error) {
	var l net.Listener
	err = n.Do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", etcdAddr)
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go e.connect(ctx, c)
		}
	}()
	return l.Close, nil
}

// connect copies between a client and etcd until one of them hangs up. Errors
// are theirs to see.
func (e *etcd) connect(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := e.dial(ctx)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
		})
	}
	both.Wait()
}

// put writes a value that does not expire.
func (e *etcd) put(ctx context.Context, key, value string) error {
	return e.call(ctx, "put", map[string][]byte{"key": []byte(key), "value": []byte(value)})
}

// remove deletes a key.
func (e *etcd) remove(ctx context.Context, key string) error {
	return e.call(ctx, "deleterange", map[string][]byte{"key": []byte(key)})
}

// call uses etcd's JSON gateway, where bytes are in base64 as Go's encoder
// writes them.
func (e *etcd) call(ctx context.Context, method string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+etcdAddr+"/v3/kv/"+method, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("etcd: %s: %w", method, err)
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, answer)
	}
	if err != nil {
		return fmt.Errorf("etcd: %s: %w", method, err)
	}
	return nil
}

func (e *etcd) close() error {
	e.client.CloseIdleConnections()
	return errors.Join(e.process.stop(), e.namespace.Close())
}

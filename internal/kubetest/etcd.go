package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/poldernet/polder/internal/kubetest/program"
)

// Etcd is one etcd, on loopback of the test's own namespace.
type Etcd struct {
	*Daemon
	Addr   netip.AddrPort
	client http.Client
}

// StartEtcd runs etcd until the test ends. Its data stay when it is stopped and
// started.
func StartEtcd(t testing.TB) *Etcd {
	t.Helper()
	file, dir := program.Need(t, program.Etcd), t.TempDir()
	client, err := freeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := freeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := &Etcd{Addr: client, Daemon: NewDaemon(nil, "etcd", dir, file, "--data-dir", filepath.Join(dir, "data"),
		"--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://"+client.String(), "--advertise-client-urls", "http://"+client.String(),
		"--listen-peer-urls", "http://"+peer.String(), "--initial-advertise-peer-urls", "http://"+peer.String(),
		"--initial-cluster", "default=http://"+peer.String())}
	t.Cleanup(func() {
		e.client.CloseIdleConnections()
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	return e
}

// Put writes a value that does not expire.
func (e *Etcd) Put(ctx context.Context, key, value string) error {
	return e.call(ctx, "put", map[string][]byte{"key": []byte(key), "value": []byte(value)}, nil)
}

// Delete deletes a key.
func (e *Etcd) Delete(ctx context.Context, key string) error {
	return e.call(ctx, "deleterange", map[string][]byte{"key": []byte(key)}, nil)
}

// Compact forgets all revisions but the last, so that nobody can watch from an
// earlier one.
func (e *Etcd) Compact(ctx context.Context) error {
	var now struct {
		Header struct {
			Revision int64 `json:"revision,string"`
		} `json:"header"`
	}
	if err := e.call(ctx, "range", map[string][]byte{"key": []byte("/")}, &now); err != nil {
		return err
	}
	return e.call(ctx, "compaction", map[string]any{"revision": now.Header.Revision, "physical": true}, nil)
}

// call uses etcd's JSON gateway, where bytes are in base64 as Go's encoder
// writes them.
func (e *Etcd) call(ctx context.Context, method string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+e.Addr.String()+"/v3/kv/"+method, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("etcd: %s: %w", method, err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		return fmt.Errorf("etcd: %s: %w", method, err)
	}
	return nil
}

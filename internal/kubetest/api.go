package kubetest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/poldernet/polder/internal/kubetest/program"
)

// API is an API server with its etcd, on loopback of the test's own namespace.
type API struct {
	*Daemon
	Etcd   *Etcd
	Addr   netip.AddrPort
	Client kubernetes.Interface // of a user who may do everything
	admin  *rest.Config
	dir    string
}

// Start runs an API server until the test ends. Its clients are authorized by
// RBAC.
func Start(t testing.TB) *API {
	t.Helper()
	file, dir := program.Need(t, program.APIServer), t.TempDir()
	a := &API{Etcd: StartEtcd(t), dir: dir}
	if err := a.prepare(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// serverName is one that the API server's certificate has at whatever address
// it is reached.
const serverName = "kubernetes.default.svc"

func (a *API) prepare(ctx context.Context, file string) (err error) {
	if a.Addr, err = freeAddress(ctx); err != nil {
		return err
	}
	token, key := rand.Text(), a.path("service-accounts.pem")
	if err := writeKey(key); err != nil {
		return err
	}
	if err := os.WriteFile(a.path("tokens.csv"), []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return err
	}
	a.Daemon = NewDaemon(nil, "kube-apiserver", a.dir, file,
		"--etcd-servers", "http://"+a.Etcd.Addr.String(),
		// It would forget old revisions every few minutes; tests say when.
		"--etcd-compaction-interval", "0",
		"--bind-address", a.Addr.Addr().String(), "--secure-port", fmt.Sprint(a.Addr.Port()),
		// It makes its own certificate here. The address is of nobody: without
		// one it looks for the default route, which a namespace has not.
		"--cert-dir", a.dir, "--advertise-address", "192.0.2.1", "--endpoint-reconciler-type", "none",
		"--service-cluster-ip-range", "10.96.0.0/16,fd00:10:96::/112",
		"--token-auth-file", a.path("tokens.csv"), "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://"+serverName, "--service-account-key-file", key, "--service-account-signing-key-file", key,
		// Who makes the service account that a pod has by default is the
		// controller manager.
		"--disable-admission-plugins", "ServiceAccount")
	a.admin = a.config(token)
	return nil
}

func (a *API) path(name string) string { return filepath.Join(a.dir, name) }

// config is that of a client who has a token.
func (a *API) config(token string) *rest.Config {
	return &rest.Config{
		Host: "https://" + a.Addr.String(), BearerToken: token,
		// The certificate's file has that of its own authority, too.
		TLSClientConfig: rest.TLSClientConfig{ServerName: serverName, CAFile: a.path("apiserver.crt")},
		QPS:             -1, // as fast as it goes
	}
}

func writeKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// Start runs the API server again after Stop or Kill, and returns when it is
// ready.
func (a *API) Start(ctx context.Context) error {
	if err := a.Daemon.Start(); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(a.admin)
	if err != nil {
		return err
	}
	a.Client = client
	ctx, stop := context.WithTimeout(ctx, Patience)
	defer stop()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		// It serves before it is ready, and then refuses some requests.
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("kube-apiserver did not become ready: %w\n%s", err, a.Tail()), a.Kill())
		case <-retry.C:
		}
	}
}

// Config is that of a client who may do everything.
func (a *API) Config() *rest.Config { return rest.CopyConfig(a.admin) }

// ServiceAccount makes a service account that may do what the rules say, in
// every namespace, and is the config of a client who has its token.
func (a *API) ServiceAccount(t testing.TB, namespace, name string, rules ...rbacv1.PolicyRule) *rest.Config {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	create(t, a.Client.CoreV1().ServiceAccounts(namespace).Create, &corev1.ServiceAccount{ObjectMeta: meta})
	meta = metav1.ObjectMeta{Name: namespace + ":" + name}
	create(t, a.Client.RbacV1().ClusterRoles().Create, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules})
	create(t, a.Client.RbacV1().ClusterRoleBindings().Create, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
	})
	token, err := a.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a.config(token.Status.Token)
}

// Kubeconfig is a file by which a program is a client with that config, of an
// API server at that address: the API's own, or where a Forwarder listens.
func (a *API) Kubeconfig(t testing.TB, c *rest.Config, at netip.AddrPort) string {
	t.Helper()
	const name = "kubetest"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server: "https://" + at.String(), TLSServerName: c.ServerName, CertificateAuthority: c.CAFile,
		}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: c.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, file)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

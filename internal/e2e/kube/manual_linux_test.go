package kube

import (
	"os"
	"strings"

	"github.com/poldernet/polder/internal/kubetest"
)

// expectQuoted adds a pod while the daemon has not heard of the cluster: what the
// runtime is told then is in the manual, to the letter.
func (r *engine) expectQuoted(pod kubetest.Attachment) {
	r.Helper()
	manual, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		r.Fatal(err)
	}
	_, err = r.Add(r.Context(), pod)
	if err == nil || !strings.Contains(string(manual), "\n"+err.Error()+"\n") {
		r.Errorf("the manual does not quote %v", err)
	}
	if err := r.Del(r.Context(), pod); err != nil {
		r.Error(err)
	}
}

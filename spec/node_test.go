package spec_test

import (
	"testing"

	"github.com/poldernet/polder/spec"
)

// A node that is in no file may be the cluster's.
func TestNodesBeside(t *testing.T) {
	for text, fine := range map[string]bool{
		``:              false,
		`kubernetes {}`: true,
		`network {
  pod_cidrs = ["10.244.0.0/16"]
}`: false,
		`kubernetes {}
network {
  pod_cidrs = ["10.244.0.0/16"]
}`: true,
	} {
		config, diags := spec.LoadText("polder.hcl", []byte("cluster = \"edge\"\n"+text+"\n"))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if diags := config.CheckNode("n1"); diags.HasErrors() == fine {
			t.Errorf("%s\n%v", text, diags)
		}
	}
}

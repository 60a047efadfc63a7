package closed

import (
	"net/netip"
	"reflect"
	"testing"
)

// TestFile: what is written is read, and nothing else is: not with a byte changed,
// cut off, or added.
func TestFile(t *testing.T) {
	want := Workloads{Ports: []string{"veth1"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00::5")}}
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Unmarshal(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range b[:len(b)-1] {
		damaged := append([]byte(nil), b...)
		damaged[i] ^= 1
		if got, err := Unmarshal(damaged); err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("byte %d is another, and it reads %+v", i, got)
		}
		if got, err := Unmarshal(b[:i]); err == nil {
			t.Errorf("%d bytes are read as %+v", i, got)
		}
	}
	empty, err := Workloads{}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Unmarshal(empty); err == nil {
		t.Errorf("nobody is read as %+v", got)
	}
}

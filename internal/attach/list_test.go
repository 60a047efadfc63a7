package attach

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func one(id, link, address string) Attachment {
	return Attachment{ID: ID{id, "eth0"}, Network: "pods", Port: Port{Interface: link, Addresses: []netip.Addr{netip.MustParseAddr(address)}}}
}

func ids(l List) string {
	var texts []string
	for _, a := range l {
		texts = append(texts, a.ContainerID)
	}
	return strings.Join(texts, " ")
}

func TestList(t *testing.T) {
	a, b := one("a", "veth1", "10.244.1.2"), one("b", "veth2", "10.244.1.3")
	two := List{a, b}
	for _, test := range []struct {
		name           string
		next           Attachment
		with, replaced string
	}{
		{"another", one("c", "veth3", "10.244.1.4"), "a b c", ""},
		{"the same", one("a", "veth3", "10.244.1.4"), "b a", "a"},
		{"its interface", one("c", "veth1", "10.244.1.4"), "b c", "a"},
		{"an address", one("c", "veth3", "10.244.1.3"), "a c", "b"},
		{"both", one("c", "veth1", "10.244.1.3"), "c", "a b"},
	} {
		if with, replaced := two.With(test.next); ids(with) != test.with || ids(replaced) != test.replaced {
			t.Errorf("%s: %s, replaced %s", test.name, ids(with), ids(replaced))
		}
	}
	rest, removed := two.Without(func(o Attachment) bool { return o.ID == a.ID })
	if ids(rest) != "b" || ids(removed) != "a" || ids(two) != "a b" {
		t.Errorf("%s, removed %s, of %s", ids(rest), ids(removed), ids(two))
	}
	if found, ok := two.Find(b.ID); !ok || !reflect.DeepEqual(found, b) {
		t.Errorf("found %+v", found)
	}
	if _, ok := two.Find(ID{"b", "eth1"}); ok {
		t.Error("found another interface's")
	}
}

func TestKept(t *testing.T) {
	a := one("a", "veth1", "10.244.1.2")
	a.Pod = Pod{"shop", "web", "0b8a"}
	text, err := List{a}.Marshal("this")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Unmarshal(text, "this"); err != nil || !reflect.DeepEqual(again, List{a}) {
		t.Errorf("%+v, %v", again, err)
	}
	if again, err := Unmarshal(text, "next"); err != nil || len(again) > 0 {
		t.Errorf("of another boot: %+v, %v", again, err)
	}
	for _, damaged := range []string{"", `{"version": 2}`, string(text[:len(text)/2])} {
		if _, err := Unmarshal([]byte(damaged), "this"); err == nil {
			t.Errorf("%q is read", damaged)
		}
	}
}

// Policies know a container by its pod or else by its ID.
func TestOn(t *testing.T) {
	a := one("0b8a", "veth1", "10.244.1.2")
	if p := a.On("n1"); p.Key() != "0b8a" || p.ID != "0b8a eth0" || p.Node != "n1" || p.Interface != "veth1" {
		t.Errorf("%+v", p)
	}
	a.Pod = Pod{Namespace: "shop", Name: "web"}
	if p := a.On("n1"); p.Key() != "shop/web" {
		t.Errorf("%+v", p)
	}
}

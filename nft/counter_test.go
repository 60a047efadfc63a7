package nft

import (
	"errors"
	"slices"
	"testing"
)

func counterMessage(name string, packets, octets uint64) []byte {
	return message(nla(1, str("polder")), nla(2, str(name)), nla(3, be32(objectCounter)), nla(4, nla(1, be64(octets)), nla(2, be64(packets))))
}

func TestDecodeCounter(t *testing.T) {
	const packets, octets = 1<<40 + 1, 1<<63 + 5
	id, name, v, err := decodeCounter(counterMessage("hits", packets, octets))
	if err != nil || id != (TableID{INet, TableName}) || name != "hits" || v != (CounterValue{packets, octets}) {
		t.Errorf("%v %s %+v %v", id, name, v, err)
	}
	for what, value := range map[string][]byte{
		"none":          nil,
		"without bytes": nla(2, be64(1)),
		"bytes only":    nla(1, be64(1)),
		"32 bits":       slices.Concat(nla(1, be32(1)), nla(2, be64(1))),
		"cut short":     {9, 0, 1},
	} {
		b := message(nla(1, str("polder")), nla(2, str("hits")), nla(3, be32(objectCounter)), nla(4, value))
		if _, _, _, err := decodeCounter(b); !errors.Is(err, errShort) {
			t.Errorf("a value of %s: %v", what, err)
		}
	}
	if _, _, _, err := decodeCounter(message(nla(1, str("polder")), nla(2, str("q")), nla(3, be32(2)))); err == nil {
		t.Error("a quota is taken for a counter")
	}
}

// FuzzDecodeCounter: what is accepted is a counter, and says what it would if it
// were written.
func FuzzDecodeCounter(f *testing.F) {
	f.Add(counterMessage("hits", 1, 2))
	f.Add(counterMessage("", 1<<63, 1<<63))
	f.Add(message(nla(1, str("polder")), nla(2, str("q")), nla(3, be32(2)), nla(4, nla(1, be64(1)))))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, name, v, err := decodeCounter(b)
		if err != nil {
			return
		}
		if _, n, w, err := decodeCounter(counterMessage(name, v.Packets, v.Bytes)); err != nil || n != name || w != v {
			t.Errorf("%q %+v became %q %+v %v", name, v, n, w, err)
		}
	})
}

package nft

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// netlinkMessage is a message of nftables as it stands in a datagram.
func netlinkMessage(kind uint16, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(nlmsghdrLength+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, nfnlSubsysNFTables<<8|kind)
	return append(append(b, make([]byte, 10)...), payload...)
}

// drawnCommit is a commit, and the messages that tell of it.
func drawnCommit(t *rapid.T) (Commit, [][]byte) {
	c := Commit{Generation: Generation(rapid.Uint32().Draw(t, "generation")), PID: rapid.IntRange(0, 1<<31-1).Draw(t, "pid"), Process: rapid.StringMatching(`[a-z]{0,15}`).Draw(t, "process")}
	var list [][]byte
	for range rapid.IntRange(0, 6).Draw(t, "objects") {
		kind := rapid.SampledFrom([]uint16{0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 18, 20, 22, 24}).Draw(t, "kind")
		id := TableID{rapid.SampledFrom([]Family{INet, Bridge, IP}).Draw(t, "family"), rapid.SampledFrom([]string{TableName, "other"}).Draw(t, "table")}
		if !slices.Contains(c.Tables, id) {
			c.Tables = append(c.Tables, id)
		}
		c.Chains = c.Chains || kind >= 3 && kind <= 8
		payload := message(nla(1, str(id.Name)), nla(3, make([]byte, 4*rapid.IntRange(0, 9).Draw(t, "rest"))))
		payload[0] = protos[id.Family]
		list = append(list, netlinkMessage(kind, payload))
	}
	return c, append(list, netlinkMessage(nftMsgNewGen, message(nla(1, be32(uint32(c.Generation))), nla(2, be32(uint32(c.PID))), nla(3, str(c.Process)))))
}

// However messages are spread over datagrams, the same commits come out.
func TestCommitsArePutTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want, got []Commit
		var n notifications
		var datagram []byte
		flush := func() {
			if err := n.add(datagram); err != nil {
				t.Fatal(err)
			}
			datagram = nil
		}
		for range rapid.IntRange(0, 5).Draw(t, "commits") {
			c, list := drawnCommit(t)
			want = append(want, c)
			for _, m := range list {
				if datagram = append(datagram, m...); rapid.Bool().Draw(t, "cut") {
					flush()
				}
			}
		}
		flush()
		for {
			c, ok := n.take()
			if !ok {
				break
			}
			got = append(got, c)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

// A message that cannot be read may have told of anything.
func TestUnreadableNotificationsAreLost(t *testing.T) {
	generation := netlinkMessage(nftMsgNewGen, message(nla(1, be32(7))))
	for name, b := range map[string][]byte{
		"cut short":           generation[:len(generation)-1],
		"no generation":       netlinkMessage(nftMsgNewGen, message()),
		"object of no table":  netlinkMessage(0, message(nla(2, be32(1)))),
		"object of no family": netlinkMessage(0, nil),
	} {
		var n notifications
		if err := n.add(netlinkMessage(0, message(nla(1, str(TableName))))); err != nil {
			t.Fatal(err)
		}
		if err := n.add(b); !errors.Is(err, ErrLost) {
			t.Errorf("%s: error %v, want %v", name, err, ErrLost)
		}
		if err := n.add(generation); err != nil {
			t.Fatal(err)
		}
		if c, ok := n.take(); !ok || len(c.Tables) > 0 {
			t.Errorf("%s: then comes %+v, which holds what was before", name, c)
		}
	}
	// Other subsystems of netfilter may send what they like.
	foreign := netlinkMessage(0, nil)
	foreign[5]++
	if err := new(notifications).add(foreign); err != nil {
		t.Error(err)
	}
}

func FuzzNotifications(f *testing.F) {
	f.Add(netlinkMessage(0, message(nla(1, str(TableName)))), netlinkMessage(nftMsgNewGen, message(nla(1, be32(7)), nla(3, str("nft")))))
	f.Add(netlinkMessage(12, message(nla(0x8001, str("t")), nla(3))), []byte{16, 0, 0, 0, 15, 10})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var n notifications
		for _, b := range [][]byte{first, second} {
			if err := n.add(b); err != nil && !errors.Is(err, ErrLost) {
				t.Error(err)
			}
		}
		for c, ok := n.take(); ok; c, ok = n.take() {
			if len(c.Tables) > 0 && !c.Touches(c.Tables[:1]) || c.Touches(nil) {
				t.Errorf("%+v", c)
			}
		}
	})
}

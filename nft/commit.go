package nft

import (
	"errors"
	"fmt"
	"slices"
)

// Commit is what the kernel tells of one commit to nftables, anybody's.
type Commit struct {
	// Generation is the one that the commit began.
	Generation Generation
	// Tables are those of which it touched something, each once.
	Tables []TableID
	// Chains says that chains or rules are among what it touched. Without
	// them, what ForeignDrops finds is what it was.
	Chains bool
	// Process is the name of the thread that committed, at most 15 bytes, and
	// PID its number in the initial PID namespace (nf_tables_fill_gen_info in
	// net/netfilter/nf_tables_api.c). Both are for people.
	Process string
	PID     int
}

// Touches says whether the commit touched one of the tables.
func (c Commit) Touches(ids []TableID) bool {
	return slices.ContainsFunc(c.Tables, func(id TableID) bool { return slices.Contains(ids, id) })
}

// ErrLost says that notifications were lost. What became of the tables can
// only be found out by reading them.
var ErrLost = errors.New("notifications of nftables were lost")

// notifications puts the messages of the group NFNLGRP_NFTABLES together to
// commits. Those of one commit come one after the other, over any number of
// datagrams, and end with NFT_MSG_NEWGEN.
type notifications struct {
	current Commit   // whose messages are coming in
	whole   []Commit // not yet taken
}

// take is the oldest commit that is whole.
func (n *notifications) take() (Commit, bool) {
	if len(n.whole) == 0 {
		return Commit{}, false
	}
	c := n.whole[0]
	n.whole = slices.Delete(n.whole, 0, 1)
	return c, true
}

// Kinds of messages, <linux/netfilter/nfnetlink.h> and nf_tables.h. All others
// are about an object of a table, too, and name the table in the same place.
const (
	nfnlSubsysNFTables = 10

	nftMsgNewChain = 3
	nftMsgDelRule  = 8 // chains and rules have the numbers up to this
	nftMsgNewGen   = 15
)

// add takes a datagram in. An error is ErrLost: what cannot be read may have
// told of anything.
func (n *notifications) add(datagram []byte) error {
	err := messages(datagram, func(h messageHeader, data []byte) error {
		kind := h.kind & 0xff
		switch {
		case h.kind>>8 != nfnlSubsysNFTables:
			return nil
		case kind == nftMsgNewGen:
			return n.end(data)
		}
		n.current.Chains = n.current.Chains || nftMsgNewChain <= kind && kind <= nftMsgDelRule
		return n.touch(data)
	})
	if err != nil {
		*n = notifications{}
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil
}

// errTable is the error of an object without a table.
var errTable = errors.New("a message names no table")

// errNamed ends the search for the table's name.
var errNamed = errors.New("the name has been found")

// touch adds the table of an object. The name is attribute 1 in all messages,
// and the first: a commit by others may have thousands of them, of which nothing
// else is looked at.
func (n *notifications) touch(b []byte) error {
	if len(b) < genmsgLength {
		return errShort
	}
	err := attributes(b[genmsgLength:], func(kind uint16, name []byte) error {
		if kind != 1 {
			return nil
		}
		name = trimNUL(name)
		if last := len(n.current.Tables) - 1; last >= 0 && n.current.Tables[last].Name == string(name) && protos[n.current.Tables[last].Family] == b[0] {
			return errNamed // as most are
		}
		if id := (TableID{familyOf(b[0]), string(name)}); !slices.Contains(n.current.Tables, id) {
			n.current.Tables = append(n.current.Tables, id)
		}
		return errNamed
	})
	switch {
	case errors.Is(err, errNamed):
		return nil
	case err == nil:
		return errTable
	}
	return err
}

// end ends the commit that is coming in.
func (n *notifications) end(b []byte) error {
	c, err := decodeCommit(b)
	if err != nil {
		return err
	}
	c.Tables, c.Chains = n.current.Tables, n.current.Chains
	n.whole, n.current = append(n.whole, c), Commit{}
	return nil
}

// decodeCommit reads NFT_MSG_NEWGEN.
func decodeCommit(b []byte) (Commit, error) {
	const (
		nftaGenID       = 1
		nftaGenProcPID  = 2
		nftaGenProcName = 3
	)
	var f fields
	if _, err := f.object(b); err != nil {
		return Commit{}, err
	}
	if len(f[nftaGenID]) != 4 {
		return Commit{}, errShort
	}
	return Commit{Generation: Generation(f.number(nftaGenID)), PID: int(f.number(nftaGenProcPID)), Process: f.text(nftaGenProcName)}, nil
}

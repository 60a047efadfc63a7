package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Reader reads rulesets from the kernel. It has no method that writes. One
// goroutine at a time may use it.
//
// It decodes netlink itself: github.com/google/nftables drops the verdicts of
// maps, expressions that it does not know, the flags of tables, and a dump's
// sign that it was interrupted.
type Reader struct {
	socket socket
	watch  watch
}

// OpenReader opens netlink sockets in the network namespace of the calling
// thread. Reading needs CAP_NET_ADMIN in the user namespace that owns it.
func OpenReader() (*Reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	events, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a netfilter netlink socket: %w", err), conn.Close())
	}
	return &Reader{socket: socket{conn: conn}, watch: watch{socket: socket{conn: events}}}, nil
}

// Close closes the sockets.
func (r *Reader) Close() error { return errors.Join(r.socket.conn.Close(), r.watch.conn.Close()) }

// maxReads bounds how often a read that others' commits tore is repeated.
const maxReads = 50

// Read reads the tables of these IDs, those that exist, completely, and the
// generation that they were read in.
//
// The kernel dumps objects in several messages and lets commits pass between
// them. Reads are therefore bracketed with the generation. If it moved, the
// notifications of the commits in between say whether one of them touched a
// table of ours: a busy neighbour, kube-proxy for one, must not keep us from
// ever finishing. Only if one did is everything read again.
func (r *Reader) Read(ctx context.Context, ids ...TableID) (Ruleset, Generation, error) {
	rs, gen, err := r.read(ctx, ids)
	return rs, gen, errors.Join(err, r.watch.stop())
}

// read is Read, but leaves the watch running if it had to be started: it then
// knows of every commit after the generation that read returns.
func (r *Reader) read(ctx context.Context, ids []TableID) (Ruleset, Generation, error) {
	for range maxReads {
		if err := ctx.Err(); err != nil {
			return nil, 0, fmt.Errorf("reading nftables: %w", err)
		}
		from, err := r.Generation()
		if err != nil {
			return nil, 0, err
		}
		rs, err := r.readOnce(ids)
		if err != nil && !torn(err) {
			return nil, 0, fmt.Errorf("reading nftables: %w", err)
		}
		to, genErr := r.Generation()
		switch {
		case genErr != nil:
			return nil, 0, genErr
		case err == nil && from == to:
			return rs, to, nil
		case !r.watch.running:
			if err := r.watch.start(); err != nil {
				return nil, 0, err
			}
		case err == nil:
			touched, err := r.watch.touched(from, to, ids)
			if err == nil && !touched {
				return rs, to, nil
			}
			if err != nil { // notifications were lost: begin anew
				if err := r.watch.start(); err != nil {
					return nil, 0, err
				}
			}
		}
	}
	return nil, 0, fmt.Errorf("reading nftables: %w %d times in a row", errTorn, maxReads)
}

// torn says that an error comes from commits during the read. An object that
// was listed and is gone when its contents are asked for is ENOENT.
func torn(err error) bool {
	return errors.Is(err, errTorn) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)
}

// Generation reads the present generation.
func (r *Reader) Generation() (gen Generation, err error) {
	_, err = r.socket.request(unix.NFT_MSG_GETGEN, "", 0, func(b []byte) error {
		c, err := decodeCommit(b)
		gen = c.Generation
		return err
	})
	switch {
	case errors.Is(err, os.ErrPermission):
		return 0, fmt.Errorf("reading nftables needs root (CAP_NET_ADMIN): %w", err)
	case err != nil:
		return 0, fmt.Errorf("reading the nftables generation: %w", err)
	}
	return gen, nil
}

// readOnce reads tables without regard to the generation.
func (r *Reader) readOnce(ids []TableID) (Ruleset, error) {
	var tables, rs Ruleset
	_, err := r.socket.dump(unix.NFT_MSG_GETTABLE, "", func(b []byte) error {
		t, err := decodeTable(b)
		if slices.Contains(ids, t.ID()) {
			tables = append(tables, t)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tables: %w", err)
	}
	for _, t := range tables {
		if err := r.fill(&t); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.ID(), err)
		}
		rs = append(rs, t.canonical())
	}
	return rs, nil
}

// fill reads what is in a table. The dumps ask for that table; a kernel that
// does not filter tells the objects of others as well.
func (r *Reader) fill(t *Table) error {
	id := t.ID()
	at := map[string]int{}
	err := r.chains(id.Family, func(of TableID, c Chain) {
		if of == id {
			at[c.Name] = len(t.Chains)
			t.Chains = append(t.Chains, c)
		}
	})
	if err != nil {
		return err
	}
	err = r.rules(id, "", func(chain string, rule Rule) error {
		i, known := at[chain]
		if !known {
			return fmt.Errorf("chain %s: %w", chain, errTorn)
		}
		t.Chains[i].Rules = append(t.Chains[i].Rules, rule)
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.objects(t); err != nil {
		return err
	}
	return r.sets(t)
}

// chains reads the chains of all tables of a family, or with "" of all
// families: the kernel has no narrower filter. That makes it the one dump
// that others' chains can tear, and the one that must not be interrupted.
func (r *Reader) chains(family Family, each func(TableID, Chain)) error {
	interrupted, err := r.socket.dump(unix.NFT_MSG_GETCHAIN, family, func(b []byte) error {
		id, c, err := decodeChain(b)
		if err == nil {
			each(id, c)
		}
		return err
	})
	if err == nil && interrupted {
		err = errTorn
	}
	if err != nil {
		return fmt.Errorf("chains: %w", err)
	}
	return nil
}

// rules reads the rules of a table, or of one of its chains, in order.
func (r *Reader) rules(id TableID, chain string, each func(chain string, rule Rule) error) error {
	attrs := []netlink.Attribute{name(unix.NFTA_RULE_TABLE, id.Name)}
	if chain != "" {
		attrs = append(attrs, name(unix.NFTA_RULE_CHAIN, chain))
	}
	_, err := r.socket.dump(unix.NFT_MSG_GETRULE, id.Family, func(b []byte) error {
		of, chain, rule, err := decodeRule(b)
		if err != nil || of != id {
			return err
		}
		return each(chain, rule)
	}, attrs...)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	return nil
}

func (r *Reader) objects(t *Table) error {
	_, err := r.socket.dump(unix.NFT_MSG_GETOBJ, t.Family, func(b []byte) error {
		of, o, err := decodeObject(b)
		switch {
		case of != t.ID():
		case o.Type == objectCounter:
			t.Counters = append(t.Counters, o.Name)
		default:
			t.Objects = append(t.Objects, o)
		}
		return err
	}, name(unix.NFTA_OBJ_TABLE, t.Name))
	if err != nil {
		return fmt.Errorf("objects: %w", err)
	}
	return nil
}

// Counters reads what the named counters of a table have counted. A table that
// is not there has none.
func (r *Reader) Counters(ctx context.Context, id TableID) (map[string]CounterValue, error) {
	for range maxReads {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading counters: %w", err)
		}
		values, err := r.counters(id)
		if err == nil {
			return values, nil
		}
		switch {
		case errors.Is(err, os.ErrPermission):
			return nil, fmt.Errorf("reading counters needs root (CAP_NET_ADMIN): %w", err)
		case !torn(err):
			return nil, fmt.Errorf("reading counters: %w", err)
		}
	}
	return nil, fmt.Errorf("reading counters: %w %d times in a row", errTorn, maxReads)
}

func (r *Reader) counters(id TableID) (map[string]CounterValue, error) {
	values := map[string]CounterValue{}
	kind := binary.BigEndian.AppendUint32(nil, objectCounter)
	interrupted, err := r.socket.dump(unix.NFT_MSG_GETOBJ, id.Family, func(b []byte) error {
		of, name, v, err := decodeCounter(b)
		if err == nil && of == id {
			values[name] = v
		}
		return err
	}, name(unix.NFTA_OBJ_TABLE, id.Name), netlink.Attribute{Type: unix.NFTA_OBJ_TYPE, Data: kind})
	if err == nil && interrupted {
		err = errTorn
	}
	return values, err
}

func (r *Reader) sets(t *Table) error {
	var counts []int
	_, err := r.socket.dump(unix.NFT_MSG_GETSET, t.Family, func(b []byte) error {
		of, s, count, err := decodeSet(b)
		if of == t.ID() {
			t.Sets, counts = append(t.Sets, s), append(counts, count)
		}
		return err
	}, name(unix.NFTA_SET_TABLE, t.Name))
	if err != nil {
		return fmt.Errorf("sets: %w", err)
	}
	for i := range t.Sets {
		if err := r.elements(t.ID(), &t.Sets[i], counts[i]); err != nil {
			return fmt.Errorf("set %s: %w", t.Sets[i].Name, err)
		}
	}
	return nil
}

// elements reads the elements of a set, at least count of them.
func (r *Reader) elements(id TableID, s *Set, count int) error {
	raws := make([]rawElement, 0, count)
	_, err := r.socket.dump(unix.NFT_MSG_GETSETELEM, id.Family, func(b []byte) (err error) {
		raws, err = decodeElements(raws, b)
		return err
	}, name(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name), name(unix.NFTA_SET_ELEM_LIST_SET, s.Name))
	if err != nil {
		return err
	}
	if len(raws) < count {
		return errTorn
	}
	s.Elements, err = assemble(*s, raws)
	return err
}

// ChainNames lists the chains of all tables, whose ever they are. It is one look:
// another one may show what a commit changes meanwhile.
func (r *Reader) ChainNames() (map[TableID][]string, error) {
	names := map[TableID][]string{}
	err := r.chains("", func(id TableID, c Chain) { names[id] = append(names[id], c.Name) })
	if err != nil && !torn(err) {
		return nil, fmt.Errorf("reading nftables: %w", err)
	}
	return names, nil
}

// ForeignDrops finds the base chains outside our tables that drop by default
// at the hooks that pod traffic passes. Tables of the iptables-nft commands are
// among them; those of the older iptables-legacy are not in nftables.
func (r *Reader) ForeignDrops(ctx context.Context) ([]ForeignDrop, error) {
	for range maxReads {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading foreign firewalls: %w", err)
		}
		drops, err := r.foreignDrops()
		if err == nil {
			return drops, nil
		}
		if !torn(err) {
			return nil, fmt.Errorf("reading foreign firewalls: %w", err)
		}
	}
	return nil, fmt.Errorf("reading foreign firewalls: %w %d times in a row", errTorn, maxReads)
}

func (r *Reader) foreignDrops() ([]ForeignDrop, error) {
	type candidate struct {
		table TableID
		Chain
	}
	var candidates []candidate
	err := r.chains("", func(id TableID, c Chain) {
		passed := c.Base != nil && slices.Contains([]string{"prerouting", "input", "forward", "output"}, c.Base.Hook) &&
			slices.Contains([]Family{INet, IP, IP6, Bridge}, id.Family)
		if passed && id.Name != TableName {
			candidates = append(candidates, candidate{id, c})
		}
	})
	if err != nil {
		return nil, err
	}
	var drops []ForeignDrop
	for _, c := range candidates {
		err := r.rules(c.table, c.Name, func(_ string, rule Rule) error {
			c.Rules = append(c.Rules[:0], rule) // only the last one matters
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("chain %s %s: %w", c.table, c.Name, err)
		}
		if d, ok := foreignDrop(c.table, c.Chain); ok {
			drops = append(drops, d)
		}
	}
	return drops, nil
}

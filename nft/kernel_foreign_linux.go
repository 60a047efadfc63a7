package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Foreign reads the chains with their rules of the tables that it is asked for, if
// they are not ours, and the generation that they were read in.
func (r *Reader) Foreign(ctx context.Context, asked func(TableID) bool) (map[TableID][]ForeignChain, Generation, error) {
	for range maxReads {
		if err := ctx.Err(); err != nil {
			return nil, 0, fmt.Errorf("reading tables of others: %w", err)
		}
		from, err := r.Generation()
		if err != nil {
			return nil, 0, err
		}
		tables, err := r.foreign(asked)
		if err != nil && !torn(err) {
			return nil, 0, fmt.Errorf("reading tables of others: %w", err)
		}
		to, moved := r.Generation()
		if moved != nil {
			return nil, 0, moved
		}
		if err == nil && from == to {
			return tables, to, nil
		}
	}
	return nil, 0, fmt.Errorf("reading tables of others: %w %d times in a row", errTorn, maxReads)
}

func (r *Reader) foreign(asked func(TableID) bool) (map[TableID][]ForeignChain, error) {
	tables := map[TableID][]ForeignChain{}
	_, err := r.socket.dump(unix.NFT_MSG_GETTABLE, "", func(b []byte) error {
		t, err := decodeTable(b)
		if err == nil && t.Name != TableName && asked(t.ID()) {
			tables[t.ID()] = nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tables: %w", err)
	}
	err = r.chains("", func(id TableID, c Chain) {
		if _, wanted := tables[id]; wanted {
			tables[id] = append(tables[id], ForeignChain{Name: c.Name, Base: c.Base})
		}
	})
	if err != nil {
		return nil, err
	}
	for id, chains := range tables {
		_, err := r.socket.dump(unix.NFT_MSG_GETRULE, id.Family, func(b []byte) error {
			of, chain, rule, err := decodeRule(b)
			if err != nil || of != id {
				return err
			}
			i := slices.IndexFunc(chains, func(c ForeignChain) bool { return c.Name == chain })
			if i < 0 {
				return fmt.Errorf("chain %s: %w", chain, errTorn)
			}
			handle, err := decodeHandle(b)
			chains[i].Rules = append(chains[i].Rules, ForeignRule{rule, handle})
			return err
		}, name(unix.NFTA_RULE_TABLE, id.Name))
		if err != nil {
			return nil, fmt.Errorf("rules of table %s: %w", id, err)
		}
	}
	return tables, nil
}

// Remove takes objects of others away, all or none of them: rules first, then what
// is in chains, then the chains and tables. Where somebody has committed after gen,
// the generation that they were read in, the error is ErrStale.
func (w *Writer) Remove(ctx context.Context, list []Removal, gen Generation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := encodeRemovals(list)
	m.guard(gen)
	err := w.send(m)
	switch {
	case errors.Is(err, unix.ERESTART):
		return ErrStale
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("writing nftables needs root (CAP_NET_ADMIN): %w", err)
	}
	return err
}

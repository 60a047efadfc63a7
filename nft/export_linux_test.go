package nft

import (
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Recorded are the datagrams that a Writer sends for a plan, but for the guard.
func Recorded(p *Plan) ([][]byte, error) {
	var batches [][]byte
	conn, err := nftables.New(nftables.WithTestDial(func(sent []netlink.Message) ([]netlink.Message, error) {
		var b []byte
		for _, m := range sent {
			m.Header.Flags &^= netlink.Acknowledge
			text, err := m.MarshalBinary()
			if err != nil {
				return nil, err
			}
			b = append(b, text...)
		}
		if len(b) > 0 {
			batches = append(batches, b)
		}
		return nil, nil
	}))
	if err != nil {
		return nil, err
	}
	c := commit{Writer: &Writer{conn: conn}}
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			if err := c.queue(tx); err != nil {
				return nil, err
			}
			if err := conn.Flush(); err != nil {
				return nil, err
			}
		}
	}
	return batches, nil
}

// OnWait has a function called before each wait for packets.
func (w *Writer) OnWait(f func()) {
	w.wait = func() {
		f()
		waitForPackets()
	}
}

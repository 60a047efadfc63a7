package nft

// Recorded are the datagrams that a Writer sends for a plan, but for the guard.
func Recorded(p *Plan) ([][]byte, error) {
	var batches [][]byte
	for _, s := range p.stages() {
		for _, tx := range s.transactions {
			m, err := encode(tx)
			if err != nil {
				return nil, err
			}
			batches = append(batches, m.b)
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

package nft

import "fmt"

// CounterValue is what a counter has counted.
type CounterValue struct{ Packets, Bytes uint64 }

// decodeCounter reads NFT_MSG_NEWOBJ of a counter, with its value.
func decodeCounter(b []byte) (id TableID, name string, v CounterValue, err error) {
	const (
		nftaObjName = 2
		nftaObjType = 3
		nftaObjData = 4

		nftaCounterBytes   = 1
		nftaCounterPackets = 2
	)
	var f, data fields
	if id, err = f.object(b); err != nil {
		return id, "", v, err
	}
	name = f.text(nftaObjName)
	if kind := f.number(nftaObjType); kind != objectCounter {
		return id, name, v, fmt.Errorf("%s is no counter", Object{Name: name, Type: kind})
	}
	if err := data.parse(f[nftaObjData]); err != nil {
		return id, name, v, fmt.Errorf("counter %s: %w", name, err)
	}
	if len(data[nftaCounterBytes]) != 8 || len(data[nftaCounterPackets]) != 8 {
		return id, name, v, fmt.Errorf("counter %s: %w", name, errShort)
	}
	return id, name, CounterValue{Packets: data.long(nftaCounterPackets), Bytes: data.long(nftaCounterBytes)}, nil
}

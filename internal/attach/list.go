package attach

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// List is the attachments of a node, as a value. Each of its methods that change it
// returns another one.
type List []Attachment

// With is the list with an attachment, and the ones that it takes the place of:
// of its ID, and those with its interface or one of its addresses. These are of
// containers that are gone, although nobody was there to be told.
func (l List) With(a Attachment) (with, replaced List) {
	for _, o := range l {
		if o.ID == a.ID || o.Interface == a.Interface || slices.ContainsFunc(o.Addresses, func(x netip.Addr) bool { return slices.Contains(a.Addresses, x) }) {
			replaced = append(replaced, o)
		} else {
			with = append(with, o)
		}
	}
	return append(with, a), replaced
}

// Without is the list without those that are to go, and these.
func (l List) Without(gone func(Attachment) bool) (rest, removed List) {
	for _, a := range l {
		if gone(a) {
			removed = append(removed, a)
		} else {
			rest = append(rest, a)
		}
	}
	return rest, removed
}

// Find is the attachment of an ID.
func (l List) Find(id ID) (Attachment, bool) {
	for _, a := range l {
		if a.ID == id {
			return a, true
		}
	}
	return Attachment{}, false
}

// file is a list as it is kept.
type file struct {
	Version     int    `json:"version"`
	Boot        string `json:"boot"` // during which they were attached
	Attachments List   `json:"attachments"`
}

const fileVersion = 1

// Marshal is the list as it is kept during a boot.
func (l List) Marshal(boot string) ([]byte, error) {
	b, err := json.MarshalIndent(file{fileVersion, boot, l}, "", "\t")
	return append(b, '\n'), err
}

// Unmarshal reads a list. One of another boot is empty: the containers ended with
// it.
func Unmarshal(b []byte, boot string) (List, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != fileVersion {
		return nil, fmt.Errorf("it is of version %d, and this polder knows version %d", f.Version, fileVersion)
	}
	if f.Boot != boot {
		return nil, nil
	}
	return f.Attachments, nil
}

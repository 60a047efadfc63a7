package closed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Workloads in a file are two lines of JSON, a head and the workloads. It says so
// little that there is no need for another version, and an older polder reads what
// a newer one wrote.
const (
	fileType    = "polder isolated workloads"
	fileVersion = 1
)

// head says what follows.
type head struct {
	Type    string `json:"type"`
	Version int    `json:"version"`
	SHA256  string `json:"sha256"` // of the second line, in hexadecimal
}

// Marshal writes workloads for Unmarshal.
func (w Workloads) Marshal() ([]byte, error) {
	body, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("marshalling the isolated workloads: %w", err)
	}
	sum := sha256.Sum256(body)
	first, err := json.Marshal(head{fileType, fileVersion, hex.EncodeToString(sum[:])})
	if err != nil {
		return nil, err
	}
	return slices.Concat(first, []byte("\n"), body, []byte("\n")), nil
}

// errDamaged is the error of a file that is not as it was written.
var errDamaged = errors.New("the file is damaged")

// Unmarshal reads what Marshal wrote. Where there is an error, nothing is known
// but that somebody is isolated: there is no file else.
func Unmarshal(b []byte) (Workloads, error) {
	first, body, _ := bytes.Cut(b, []byte("\n"))
	var h head
	if err := json.Unmarshal(first, &h); err != nil || h.Type != fileType {
		return Workloads{}, fmt.Errorf("%w: it does not begin as it should", errDamaged)
	}
	if h.Version != fileVersion {
		return Workloads{}, fmt.Errorf("the file is of version %d, and this polder knows version %d", h.Version, fileVersion)
	}
	body = bytes.TrimSuffix(body, []byte("\n"))
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != h.SHA256 {
		return Workloads{}, fmt.Errorf("%w: its checksum is not that of what it holds", errDamaged)
	}
	var w Workloads
	if err := json.Unmarshal(body, &w); err != nil {
		return Workloads{}, fmt.Errorf("unmarshalling the isolated workloads: %w", err)
	}
	if w.Empty() {
		return Workloads{}, fmt.Errorf("%w: it names nobody", errDamaged)
	}
	return w, nil
}

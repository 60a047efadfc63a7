package nft

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
)

// A ruleset in a file is two lines of JSON: a head, and the tables. Data are
// hexadecimal and, as in the kernel, partly in the host's byte order: the file
// is for the host that wrote it.
const (
	fileType    = "polder ruleset"
	fileVersion = 1
)

// head says what follows, before anybody tries to understand it.
type head struct {
	Type    string `json:"type"`
	Version int    `json:"version"`
	SHA256  string `json:"sha256"` // of the second line, in hexadecimal
}

// Marshal writes a ruleset for Unmarshal. Rulesets that hold the same give the
// same bytes. The error is for what is never desired, an Unknown.
func Marshal(rs Ruleset) ([]byte, error) {
	sorted := make(Ruleset, len(rs))
	for i, t := range rs {
		sorted[i] = t.canonical()
	}
	slices.SortFunc(sorted, func(a, b Table) int { return cmp.Compare(a.ID().String(), b.ID().String()) })
	tables, err := json.Marshal(sorted)
	if err != nil {
		return nil, fmt.Errorf("marshalling a ruleset: %w", err)
	}
	return seal(tables)
}

// seal puts the head before the tables.
func seal(tables []byte) ([]byte, error) {
	sum := sha256.Sum256(tables)
	first, err := json.Marshal(head{fileType, fileVersion, hex.EncodeToString(sum[:])})
	if err != nil {
		return nil, err
	}
	return slices.Concat(first, []byte("\n"), tables, []byte("\n")), nil
}

// errDamaged is the error of a file that is not as it was written.
var errDamaged = errors.New("the file is damaged")

// Unmarshal reads what Marshal wrote. An error says that it was cut off, damaged,
// or written by a polder that knows more; a ruleset that comes without one can
// be committed as far as a model can tell.
func Unmarshal(b []byte) (Ruleset, error) {
	first, tables, _ := bytes.Cut(b, []byte("\n"))
	var h head
	if err := json.Unmarshal(first, &h); err != nil || h.Type != fileType {
		return nil, fmt.Errorf("%w: it does not begin as a ruleset of polder does", errDamaged)
	}
	if h.Version != fileVersion {
		return nil, fmt.Errorf("the file is of version %d, and this polder knows version %d", h.Version, fileVersion)
	}
	tables = bytes.TrimSuffix(tables, []byte("\n"))
	if sum := sha256.Sum256(tables); hex.EncodeToString(sum[:]) != h.SHA256 {
		return nil, fmt.Errorf("%w: its checksum is not that of what it holds", errDamaged)
	}
	var rs Ruleset
	if err := unmarshalStrictly(tables, &rs); err != nil {
		return nil, fmt.Errorf("unmarshalling a ruleset: %w", err)
	}
	// The model runs what a commit would send, and notices what refers to
	// nothing, is there twice, or is never written.
	led, err := Diff(rs, nil).expected(math.MaxInt)
	if err != nil {
		return nil, fmt.Errorf("unmarshalling a ruleset: %w", err)
	}
	slices.SortFunc(led, func(a, b Table) int { return cmp.Compare(a.ID().String(), b.ID().String()) })
	if !equalRulesets(led, rs) {
		return nil, errors.New("unmarshalling a ruleset: it holds something twice, in disorder, or that is never written")
	}
	return rs, nil
}

// unmarshalStrictly refuses what it does not know: a rule with half of its
// meaning would be another rule.
func unmarshalStrictly(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the end")
	}
	return nil
}

// MarshalText makes data hexadecimal: JSON strings hold text only.
func (d Data) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString([]byte(d))), nil }

// UnmarshalText reads hexadecimal data.
func (d *Data) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*d = Data(b)
	return err
}

// exprKind is how expressions of one type are found in a file.
type exprKind struct {
	of        reflect.Type
	unmarshal func(b []byte) (Expr, error)
}

func kindOf[E Expr]() exprKind {
	return exprKind{reflect.TypeFor[E](), func(b []byte) (Expr, error) {
		var e E
		err := unmarshalStrictly(b, &e)
		return e, err
	}}
}

// exprKinds are all expressions but Unknown.
var exprKinds = map[string]exprKind{
	"payload":     kindOf[Payload](),
	"meta":        kindOf[Meta](),
	"meta_set":    kindOf[MetaSet](),
	"ct":          kindOf[CT](),
	"fib":         kindOf[FIB](),
	"bitwise":     kindOf[Bitwise](),
	"cmp":         kindOf[Cmp](),
	"lookup":      kindOf[Lookup](),
	"verdict":     kindOf[Verdict](),
	"counter":     kindOf[Counter](),
	"counter_ref": kindOf[CounterRef](),
	"limit":       kindOf[Limit](),
	"log":         kindOf[Log](),
	"masquerade":  kindOf[Masquerade](),
	"notrack":     kindOf[Notrack](),
}

var exprNames = func() map[reflect.Type]string {
	names := make(map[reflect.Type]string, len(exprKinds))
	for name, kind := range exprKinds {
		names[kind.of] = name
	}
	return names
}()

// ruleFile is a rule in a file. Each expression is an object of one field, the
// name of its kind.
type ruleFile struct {
	Exprs   []map[string]json.RawMessage
	Comment string `json:",omitzero"`
}

// MarshalJSON writes the rule with the kinds of its expressions.
func (r Rule) MarshalJSON() ([]byte, error) {
	f := ruleFile{Comment: r.Comment, Exprs: make([]map[string]json.RawMessage, len(r.Exprs))}
	for i, e := range r.Exprs {
		name, ok := exprNames[reflect.TypeOf(e)]
		if !ok {
			return nil, fmt.Errorf("expression %T cannot be marshalled", e)
		}
		b, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		f.Exprs[i] = map[string]json.RawMessage{name: b}
	}
	return json.Marshal(f)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Rule) UnmarshalJSON(b []byte) error {
	var f ruleFile
	if err := unmarshalStrictly(b, &f); err != nil {
		return err
	}
	*r = Rule{Comment: f.Comment, Exprs: make([]Expr, 0, len(f.Exprs))}
	for i, fields := range f.Exprs {
		if len(fields) != 1 {
			return fmt.Errorf("expression %d has %d kinds", i+1, len(fields))
		}
		for name, b := range fields {
			kind, ok := exprKinds[name]
			if !ok {
				return fmt.Errorf("there is no expression %q", name)
			}
			e, err := kind.unmarshal(b)
			if err != nil {
				return fmt.Errorf("expression %q: %w", name, err)
			}
			r.Exprs = append(r.Exprs, e)
		}
	}
	return nil
}

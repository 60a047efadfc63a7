package flannel

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// kind is what a JSON value is, in words for messages.
type kind string

const (
	object  kind = "an object"
	list    kind = "a list"
	text    kind = "a string"
	number  kind = "a number"
	boolean kind = "true or false"
	null    kind = "null"
)

// value is a JSON value that knows where it stands.
type value struct {
	kind
	text    string // of a string what it says, of a number how it is written
	truth   bool
	members []member
	items   []value
	span
}

// span is from where to where something stands in its part.
type span struct{ from, to int }

// member is one of an object.
type member struct {
	name string
	at   span // of the name
	value
}

// json parses the part. What flannel would not read is an error at its place.
func (p part) json() (value, bool) {
	var whatever any
	if err := json.Unmarshal(p.text, &whatever); err != nil {
		from := len(bytes.TrimRight(p.text, " \t\r\n"))
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && int(syntax.Offset) <= from {
			from = max(0, int(syntax.Offset)-1)
		}
		p.fail(span{from, from + 1}, "This is not JSON", "%s. flannel reads strict JSON: names and strings in double quotes, no comments, no comma after the last member.", err)
		return value{}, false
	}
	r := jsonReader{part: p, decoder: json.NewDecoder(bytes.NewReader(p.text))}
	r.decoder.UseNumber()
	return r.value(), true
}

// jsonReader makes values of valid JSON.
type jsonReader struct {
	part
	decoder *json.Decoder
}

// next is the next token and where it stands.
func (r *jsonReader) next() (json.Token, span) {
	from := int(r.decoder.InputOffset())
	token, err := r.decoder.Token()
	if err != nil {
		return nil, span{from, from} // not of valid JSON
	}
	to := int(r.decoder.InputOffset())
	from = to - len(bytes.TrimLeft(r.text[from:to], " \t\r\n,:"))
	return token, span{from, to}
}

func (r *jsonReader) value() value {
	token, at := r.next()
	v := value{kind: null, span: at}
	switch token := token.(type) {
	case json.Delim:
		v.kind = object
		if token == '[' {
			v.kind = list
		}
		for r.decoder.More() {
			if v.kind == list {
				v.items = append(v.items, r.value())
				continue
			}
			name, at := r.next()
			key, _ := name.(string)
			v.members = append(v.members, member{key, at, r.value()})
		}
		_, end := r.next()
		v.to = end.to
	case string:
		v.kind, v.text = text, token
	case json.Number:
		v.kind, v.text = number, token.String()
	case bool:
		v.kind, v.truth = boolean, token
	}
	return v
}

// get is the member of a name as Go's decoder finds it: in any case, the last
// one where there are several.
func (v value) get(name string) (found member, ok bool) {
	for _, m := range v.members {
		if strings.EqualFold(m.name, name) {
			found, ok = m, true
		}
	}
	return found, ok
}

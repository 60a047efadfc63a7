package cluster

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// sifting decodes of what an API server streams only what is of use here. A Node names
// its images, and who manages which of its fields: to make values of all that, and throw
// them away, costs more than everything else that is done with one.
type sifting struct{ runtime.NegotiatedSerializer }

func (s sifting) SupportedMediaTypes() []runtime.SerializerInfo {
	all := slices.Clone(s.NegotiatedSerializer.SupportedMediaTypes())
	for i := range all {
		if all[i].MediaType == runtime.ContentTypeProtobuf {
			stream := *all[i].StreamSerializer
			stream.Serializer = siftingStream{stream.Serializer}
			all[i].StreamSerializer = &stream
		}
	}
	return all
}

// siftingStream decodes the messages of a watch.
type siftingStream struct{ runtime.Serializer }

func (s siftingStream) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if sifted, ok := siftEvent(make([]byte, 0, 512), data); ok {
		data = sifted
	} // else who decodes it says what is wrong
	return s.Serializer.Decode(data, defaults, into)
}

// A sieve appends what is kept of a message in protobuf. It returns nil where the
// message is to be left out; false: it is none.
type sieve func(to, message []byte) ([]byte, bool)

func whole(to, message []byte) ([]byte, bool) { return append(to, message...), true }

// sieves are by the numbers of fields.
type sieves map[protowire.Number]sieve

// only keeps some of a message's fields, and of these what their own sieves keep.
func only(sieves sieves) sieve {
	var of [64]sieve // it is looked into for each field of each object
	for number, s := range sieves {
		of[number] = s
	}
	return func(to, message []byte) ([]byte, bool) {
		for len(message) > 0 {
			number, kind, n := protowire.ConsumeField(message)
			if n < 0 {
				return to, false
			}
			field := message[:n]
			message = message[n:]
			switch {
			case int(number) >= len(of) || of[number] == nil:
			case kind != protowire.BytesType:
				to = append(to, field...)
			default:
				var ok bool
				if to, ok = siftField(to, field, of[number]); !ok {
					return to, false
				}
			}
		}
		return to, true
	}
}

// siftField keeps of a field that is a message what a sieve keeps of it.
func siftField(to, field []byte, s sieve) ([]byte, bool) {
	_, _, tag := protowire.ConsumeTag(field)
	content, _ := protowire.ConsumeBytes(field[tag:])
	start := len(to) + tag
	with, ok := s(append(to, field[:tag]...), content)
	if with == nil {
		return to, ok
	}
	var size [binary.MaxVarintLen64]byte
	return slices.Insert(with, start, protowire.AppendVarint(size[:0], uint64(len(with)-start))...), ok
}

// named keeps a message whose field 1 is one of some texts, and leaves out others. That
// field is the key of a map's entry, and the type of a condition.
func named[T ~string](texts ...T) sieve {
	return func(to, message []byte) ([]byte, bool) {
		name, ok := textOf(message, 1)
		if !slices.ContainsFunc(texts, func(t T) bool { return string(t) == string(name) }) {
			return nil, ok
		}
		return append(to, message...), ok
	}
}

// textOf is a field of a message, which has a text: the last one counts.
func textOf(message []byte, field protowire.Number) (text []byte, ok bool) {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, false
		}
		n := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if n < 0 {
			return nil, false
		}
		if number == field && kind == protowire.BytesType {
			text, _ = protowire.ConsumeBytes(message[tag:])
		}
		message = message[tag+n:]
	}
	return text, true
}

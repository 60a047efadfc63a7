package overlay

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// acknowledgement is a NLMSG_ERROR for a request, as the kernel builds it.
func acknowledgement(errno unix.Errno, request []byte, capped bool, text string) (flags uint16, body []byte) {
	body = binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	header := appendMessage(nil, message{rtmNewRoute, 0, request}, 1)
	if capped {
		header, flags = header[:headerLen], flagCapped
	}
	body = append(body, header...)
	if text != "" {
		flags |= flagAckTLVs
		body = appendAttr(body, attrErrorMsg, append([]byte(text), 0))
	}
	return flags, body
}

func TestAckError(t *testing.T) {
	for _, capped := range []bool{false, true} {
		for _, text := range []string{"", "Nexthop has invalid gateway"} {
			flags, body := acknowledgement(unix.EINVAL, make([]byte, 33), capped, text)
			want := unix.EINVAL.Error()
			if text != "" {
				want += ": " + text
			}
			if err := ackError(msgError, flags, body); !errors.Is(err, unix.EINVAL) || err.Error() != want {
				t.Errorf("capped %t: %v, want %s", capped, err, want)
			}
		}
		flags, body := acknowledgement(0, make([]byte, 33), capped, "")
		if err := ackError(msgError, flags, body); err != nil {
			t.Errorf("success is %v", err)
		}
	}
	code := int32(unix.ENOENT)
	done := appendAttr(binary.NativeEndian.AppendUint32(nil, uint32(-code)), attrErrorMsg, []byte("No such table\x00"))
	if err := ackError(msgDone, flagAckTLVs, done); !errors.Is(err, unix.ENOENT) || err.Error() != unix.ENOENT.Error()+": No such table" {
		t.Errorf("the end of a dump: %v", err)
	}
	// What says nothing is no success.
	for _, body := range [][]byte{nil, {0}, {0, 0, 0}} {
		if err := ackError(msgError, 0, body); err == nil {
			t.Errorf("%d bytes are taken for success", len(body))
		}
	}
}

func FuzzAckError(f *testing.F) {
	for _, capped := range []bool{false, true} {
		flags, body := acknowledgement(unix.EEXIST, make([]byte, 5), capped, "RTM_NEWNEXTHOP")
		f.Add(uint16(msgError), flags, body)
		f.Add(uint16(msgDone), flags, body)
	}
	f.Add(uint16(msgError), uint16(flagAckTLVs), []byte{255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, kind, flags uint16, body []byte) {
		err := ackError(kind, flags, body)
		if success := len(body) >= 4 && binary.NativeEndian.Uint32(body) == 0; success != (err == nil) {
			t.Fatalf("%x: %v", body, err)
		}
		if err != nil && err.Error() == "" {
			t.Fatalf("%x: an error without words", body)
		}
	})
}

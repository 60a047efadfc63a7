package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A lab in the background is a sandbox with a process that listens on an
// abstract Unix socket (unix(7)): such a name is no file, and is gone with the
// process. Requests and replies are one JSON value each, one packet each.

// request is what a client sends. The first on a connection says what it is
// about; later ones carry signals for the process that it started.
type request struct {
	// Machine and Argv ask for a process, whose standard streams come as
	// descriptors beside the packet.
	Machine string   `json:"machine,omitempty"`
	Argv    []string `json:"argv,omitempty"`
	Env     []string `json:"env,omitempty"`
	Dir     string   `json:"dir,omitempty"`
	// Terminal says that standard input is a terminal for the process to
	// control.
	Terminal bool `json:"terminal,omitempty"`
	// Signal is a signal's number, for the process.
	Signal int `json:"signal,omitempty"`
	// Down asks the lab to end.
	Down bool `json:"down,omitempty"`
}

// reply ends a request.
type reply struct {
	Error string `json:"error,omitempty"`
	// Exit is the status of the process, a shell's 128+n after a signal.
	Exit int `json:"exit"`
}

// packetLimit is the longest packet in bytes. The kernel's own limit is the
// sender's buffer, net.core.wmem_default, 208 KiB where nobody changed it.
const packetLimit = 1 << 20

// decodeRequest reads the first request of a connection.
func decodeRequest(b []byte) (request, error) {
	var r request
	if err := json.Unmarshal(b, &r); err != nil {
		return request{}, fmt.Errorf("reading the request: %w", err)
	}
	if !r.Down && len(r.Argv) == 0 {
		return request{}, errors.New("reading the request: it asks for nothing")
	}
	return r, nil
}

var labName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// socketName is the abstract name of a user's lab. It ends up in the sun_path
// of 108 bytes.
func socketName(lab string, uid int) (string, error) {
	if !labName.MatchString(lab) {
		return "", fmt.Errorf("lab name %q: letters a to z, digits and dashes, at most 32", lab)
	}
	return fmt.Sprintf("@polder-lab-%d-%s", uid, lab), nil
}

// withPath is an environment in which the sandbox's own programs are found
// first, and its PATH.
func withPath(env []string) (changed []string, path string) {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
			continue
		}
		changed = append(changed, e)
	}
	path = binDir + ":" + path
	return append(changed, "PATH="+path), path
}

// lookPath is exec.LookPath for another process's PATH and working directory.
func lookPath(program, path, dir string) (string, error) {
	if strings.Contains(program, "/") {
		if !filepath.IsAbs(program) {
			program = filepath.Join(dir, program)
		}
		return exec.LookPath(program)
	}
	for _, folder := range filepath.SplitList(path) {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(dir, folder)
		}
		if found, err := exec.LookPath(filepath.Join(folder, program)); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, exec.ErrNotFound)
}

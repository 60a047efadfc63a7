//go:build !linux

package remains

// processes finds none: flannel and Felix run on Linux.
func processes() ([]Process, error) { return nil, nil }

// legacyTables finds none.
func legacyTables() []string { return nil }

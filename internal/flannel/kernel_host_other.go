//go:build !linux

package flannel

// processes finds none: flannel runs on Linux.
func processes() ([]Process, error) { return nil, nil }

// legacyTables finds none.
func legacyTables() []string { return nil }

// Package e2e holds the tests of polder as a whole: specs as files, nodes and
// pods as namespaces, packets as packets. What the tests believe comes from
// the wire and from ip(8), bridge(8) and nft(8), not from polder's own layers.
package e2e

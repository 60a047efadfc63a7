// Package station sends and gets the packets of tests in namespaces: any packet,
// from any address, each known by an identity in it.
package station

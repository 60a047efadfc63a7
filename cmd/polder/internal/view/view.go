// Package view is what the command says: models of plans, results, status and
// diagnostics that are printed as JSON, and the text that is rendered from the
// same models. Nothing in the text is missing from the JSON.
package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/fatih/color"

	"github.com/poldernet/polder/internal/change"
)

// FormatVersion is the version of all JSON output. A new minor version adds
// members; a new major version removes or redefines some.
const FormatVersion = "1.1"

// Text says how a model is rendered for people.
type Text struct {
	Color   bool // ANSI colours; off unless the output is a terminal
	Verbose bool // every change and peer, however many there are
}

// WriteJSON writes a model on one line, so that a stream of models is one of
// lines (https://jsonlines.org).
func WriteJSON(w io.Writer, model any) error {
	b, err := json.Marshal(model)
	if err != nil {
		return fmt.Errorf("encoding JSON: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// paint colours a string, where colours are on.
func (t Text) paint(s string, attributes ...color.Attribute) string {
	if !t.Color {
		return s
	}
	c := color.New(attributes...)
	c.EnableColor() // the choice is ours, not that of the package's global
	return c.Sprint(s)
}

func (t Text) bold(s string) string  { return t.paint(s, color.Bold) }
func (t Text) faint(s string) string { return t.paint(s, color.Faint) }
func (t Text) good(s string) string  { return t.paint(s, color.FgGreen, color.Bold) }
func (t Text) bad(s string) string   { return t.paint(s, color.FgRed, color.Bold) }
func (t Text) warn(s string) string  { return t.paint(s, color.FgYellow, color.Bold) }

// sign is how an action is marked and what the legend and the progress of an
// apply call it.
type sign struct {
	action change.Action
	symbol string
	verb   string // printed behind the symbol, where that is not enough
	legend string
	past   string
	colour color.Attribute
}

var signs = []sign{
	{change.Create, "+", "", "create", "created", color.FgGreen},
	{change.Update, "~", "", "update in place", "updated", color.FgYellow},
	{change.Replace, "-/+", "", "delete and create anew", "replaced", color.FgRed},
	{change.Delete, "-", "", "delete", "deleted", color.FgRed},
	{change.Adopt, "~", "adopt", "take over as it is", "adopted", color.FgCyan},
	{change.Release, "~", "release", "take polder's mark off", "released", color.FgCyan},
}

// mark is the symbol with its verb: "+", "-/+", "~ adopt".
func (s sign) mark() string {
	if s.verb == "" {
		return s.symbol
	}
	return s.symbol + " " + s.verb
}

func signOf(a change.Action) sign {
	for _, s := range signs {
		if s.action == a {
			return s
		}
	}
	return sign{action: a, symbol: "?", legend: string(a), past: string(a)}
}

// count is "1 change" or "3 changes".
func count(n int, noun string) string {
	if noun == "fdb" {
		noun = "fdb entry"
	}
	if n != 1 {
		switch {
		case strings.HasSuffix(noun, "y"):
			noun = strings.TrimSuffix(noun, "y") + "ies"
		case strings.HasSuffix(noun, "s"):
			noun += "es"
		default:
			noun += "s"
		}
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Printable is a model that can be rendered for people.
type Printable interface {
	WriteText(w io.Writer, t Text) error
}

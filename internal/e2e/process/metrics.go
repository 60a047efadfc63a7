package process

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metrics are a daemon's, by name with labels as they are printed.
type Metrics map[string]float64

// Metrics asks the daemon for its metrics.
func (d *Process) Metrics() Metrics {
	d.Helper()
	text, err := d.scrape()
	for begin := time.Now(); err != nil; text, err = d.scrape() { // it may not listen yet
		if time.Since(begin) > Endurance {
			d.Fatalf("scraping %s: %v\n%s", d.Node.Name(), err, d.Logbook.Tail())
		}
		d.Pause()
	}
	values := Metrics{}
	for line := range strings.Lines(text) {
		name, value, ok := cutLast(strings.TrimSpace(line), " ")
		if f, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			values[name] = f
		}
	}
	return values
}

func (d *Process) scrape() (string, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://127.0.0.1:"+listenPort+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := d.http.Do(request)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(response.Body)
	return string(text), errors.Join(err, response.Body.Close())
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Sum adds those of a name over those labels that it is given whole or in
// part.
func (m Metrics) Sum(name string, labels ...string) (total float64) {
next:
	for series, value := range m {
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue next
			}
		}
		total += value
	}
	return total
}

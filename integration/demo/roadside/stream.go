package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// tally is what a stream prints, as JSON.
type tally struct {
	Sent, Lost int
	// Slowest is the longest time an answer took, in milliseconds.
	Slowest int64
	// FirstError says why the first request was lost.
	FirstError string `json:",omitempty"`

	mu sync.Mutex
}

func (t *tally) add(took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Sent++
	t.Slowest = max(t.Slowest, took.Milliseconds())
	if err == nil {
		return
	}
	t.Lost++
	if t.FirstError == "" {
		t.FirstError = err.Error()
	}
}

// stream sends requests at a steady rate, however slow the answers are, until
// ctx ends, and prints the tally.
func stream(ctx context.Context, url, rateText string) error {
	rate, err := strconv.Atoi(rateText)
	if err != nil || rate < 1 || rate > 10000 {
		return fmt.Errorf("rate %q: give a number of requests a second from 1 to 10000", rateText)
	}
	client := &http.Client{
		Timeout: patience,
		// A request on a new connection needs the route at that moment.
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	var t tally
	var flying sync.WaitGroup
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			flying.Go(func() {
				start := time.Now()
				err := get(client, url)
				t.add(time.Since(start), err)
			})
		}
	}
	flying.Wait()
	return json.NewEncoder(os.Stdout).Encode(&t)
}

func get(client *http.Client, url string) error {
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

// web is the lab's test application and its measuring probe.
//
//	web [serve]      answers with its host name and the time it started
//	web get URL      one request, prints the answer
//	web probe URL    asks at a fixed rate, a new connection each time, and reports as JSON
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	mode, arguments := "serve", os.Args[1:]
	if len(arguments) > 0 && !strings.HasPrefix(arguments[0], "-") {
		mode, arguments = arguments[0], arguments[1:]
	}
	switch mode {
	case "serve":
		serve(arguments)
	case "get":
		get(arguments)
	case "probe":
		probe(arguments)
	default:
		fail("unknown mode %q: serve, get or probe", mode)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "web: "+format+"\n", values...)
	os.Exit(1)
}

func endSignal() <-chan os.Signal {
	channel := make(chan os.Signal, 1)
	signal.Notify(channel, syscall.SIGTERM, syscall.SIGINT)
	return channel
}

// serve is well-behaved: after SIGTERM it goes on for --linger, because endpoints are
// withdrawn only some time after the signal. With --ignore-sigterm only SIGKILL ends it.
func serve(arguments []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("listen", ":8080", "address")
	linger := flags.Duration("linger", 5*time.Second, "goes on serving so long after SIGTERM")
	ignore := flags.Bool("ignore-sigterm", os.Getenv("WEB_IGNORE_SIGTERM") != "", "also WEB_IGNORE_SIGTERM=1")
	_ = flags.Parse(arguments)

	host, _ := os.Hostname()
	since := time.Now().UTC().Format(time.RFC3339)
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%s up since %s\n", host, since) })
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	done := make(chan struct{})
	go func() {
		defer close(done)
		for range endSignal() {
			if *ignore {
				fmt.Println("told to end: ignored")
				continue
			}
			fmt.Println("told to end: serving on for", *linger)
			server.SetKeepAlivesEnabled(false)
			time.Sleep(*linger)
			limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = server.Shutdown(limit)
			return
		}
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fail("%v", err)
	}
	<-done
}

func client() *http.Client {
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

func get(arguments []string) {
	if len(arguments) != 1 {
		fail("usage: web get URL")
	}
	answer, err := client().Get(arguments[0])
	if err != nil {
		fail("%v", err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(os.Stdout, answer.Body)
	if answer.StatusCode != http.StatusOK {
		fail("%s", answer.Status)
	}
}

// failure is one request that got no answer with status 200.
type failure struct {
	At    string `json:"at"`
	Error string `json:"error"`
}

// report counts requests by their end. The longest gap is the longest time between two
// successes that followed each other (by the time of the answer), the open one included.
type report struct {
	URL          string         `json:"url"`
	Started      string         `json:"started"`
	Seconds      float64        `json:"seconds"`
	OK           int            `json:"ok"`
	Failed       int            `json:"failed"`
	LongestGapMS int64          `json:"longest_gap_ms"`
	LongestGapAt string         `json:"longest_gap_at"`
	Backends     map[string]int `json:"backends"`
	Failures     []failure      `json:"failures"`

	lock    sync.Mutex
	began   time.Time
	success time.Time
}

const keptFailures = 50

func (r *report) add(backend string, err error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	now := time.Now()
	if err != nil {
		r.Failed++
		if len(r.Failures) < keptFailures {
			r.Failures = append(r.Failures, failure{now.UTC().Format(time.RFC3339Nano), err.Error()})
		}
		return
	}
	r.gap(now)
	r.success = now
	r.OK++
	r.Backends[backend]++
}

func (r *report) gap(now time.Time) {
	if gap := now.Sub(r.success).Milliseconds(); gap > r.LongestGapMS {
		r.LongestGapMS = gap
		r.LongestGapAt = r.success.UTC().Format(time.RFC3339Nano)
	}
}

func (r *report) json() []byte {
	r.lock.Lock()
	defer r.lock.Unlock()
	now := time.Now()
	r.gap(now)
	r.Seconds = now.Sub(r.began).Seconds()
	text, _ := json.Marshal(r)
	return append(text, '\n')
}

func probe(arguments []string) {
	flags := flag.NewFlagSet("probe", flag.ExitOnError)
	rate := flags.Float64("rate", 20, "requests per second")
	target := flags.String("report", "stdout", "file, or stdout")
	limit := flags.Duration("for", 0, "ends by itself after this time (0: at SIGTERM)")
	listen := flags.String("listen", "", "also answers GET / there with the report so far")
	url := ""
	for len(arguments) > 0 {
		_ = flags.Parse(arguments)
		if arguments = flags.Args(); len(arguments) > 0 {
			url, arguments = arguments[0], arguments[1:]
		}
	}
	if url == "" || *rate <= 0 {
		fail("usage: web probe URL [--rate 20] [--report FILE] [--for 10s] [--listen :8080]")
	}

	began := time.Now()
	result := &report{URL: url, Started: began.UTC().Format(time.RFC3339Nano), began: began, success: began,
		Backends: map[string]int{}, Failures: []failure{}}
	if *listen != "" {
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(result.json()) })
		go func() { fail("%v", http.ListenAndServe(*listen, handler)) }()
	}

	var over <-chan time.Time
	if *limit > 0 {
		over = time.After(*limit)
	}
	end := endSignal()
	tick := time.NewTicker(time.Duration(float64(time.Second) / *rate))
	defer tick.Stop()
	var open sync.WaitGroup
	for running := true; running; {
		select {
		case <-tick.C:
			open.Add(1)
			go func() {
				defer open.Done()
				result.add(ask(url))
			}()
		case <-over:
			running = false
		case <-end:
			running = false
		}
	}
	open.Wait()
	if *target == "stdout" {
		_, _ = os.Stdout.Write(result.json())
	} else if err := os.WriteFile(*target, result.json(), 0o644); err != nil {
		fail("%v", err)
	}
}

// ask returns the first word of the answer, which is the host name of the pod.
func ask(url string) (string, error) {
	answer, err := client().Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", answer.Status)
	}
	backend, _, _ := strings.Cut(string(body), " ")
	return strings.TrimSpace(backend), nil
}

// Testapp is the program inside the images of the end-to-end tests and the benchmark: a static
// binary that does one simple, observable thing, chosen by its first argument.
//
//	print N [BYTES]        N numbered lines of BYTES bytes each, then exit 0
//	fill BYTES             wait for SIGUSR1, write numbered lines up to BYTES, print "filled", wait
//	exit CODE              exit at once
//	wait                   wait for SIGTERM, exit 0
//	term CODE              wait for SIGTERM, say so, exit CODE
//	stubborn               ignore SIGTERM for ever
//	http ADDR BODY         serve BODY on ADDR
//	get URL                fetch URL, print the body
//	eat MIB                allocate and touch MIB mebibytes, then wait
//	eatchild MIB           let a child do that, survive it, wait
//	burn                   use a whole core
//	spawn                  start a child that waits, then wait; neither minds the other
//	env | id | args        print what the process was given
//	cat FILE               print a file
//	stamp                  print the time of the first instruction, nanoseconds since 1970
//	stay                   do that, then wait
//	send ADDR REQUEST...   write each request to a connection of its own, print the answers
//	sendfrom IP ADDR ...   likewise, from one of several addresses
//	dial ADDR...           print which addresses and unix sockets take a connection
//	frames SRC>DST:PORT... send UDP packets with whatever addresses
//	relay ADDR AGENT       lead requests for /v1/ to AGENT, others to the task's metadata, as if from here
//	hog ADDR N             open N connections and keep them
//	forbid MAJOR:MINOR PID try what containers must not do, to that disk and process, print what was refused
//
// Every further argument of the others is ignored, so that a test can add a token to find the process by.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// firstInstruction is set while the package initializes, before main.
var firstInstruction = time.Now()

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"wait"}
	}
	if err := run(args[0], args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(99)
	}
}

func run(what string, args []string) error {
	arg := func(i int, otherwise string) string {
		if i < len(args) {
			return args[i]
		}
		return otherwise
	}
	number := func(i, otherwise int) int {
		n, err := strconv.Atoi(arg(i, strconv.Itoa(otherwise)))
		if err != nil {
			fmt.Fprintln(os.Stderr, "testapp:", err)
			os.Exit(98)
		}
		return n
	}
	switch what {
	case "print":
		return lines(number(0, 1), number(1, 0))
	case "fill":
		go waitSignal(syscall.SIGTERM, 0)
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR1)
		fmt.Println("ready to fill")
		<-c
		const width = 100
		if err := lines(number(0, 0)/width, width); err != nil {
			return err
		}
		fmt.Println("filled")
		select {}
	case "exit":
		os.Exit(number(0, 0))
	case "wait":
		waitSignal(syscall.SIGTERM, 0)
	case "term":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("waiting")
		<-c
		fmt.Println("got SIGTERM")
		os.Exit(number(0, 0))
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ignoring SIGTERM")
		waitSignal(syscall.SIGUSR2, 0)
	case "http":
		return http.ListenAndServe(arg(0, ":80"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, arg(1, "hello"))
		}))
	case "get":
		client := http.Client{Timeout: 10 * time.Second}
		resp, err := client.Get(arg(0, ""))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		fmt.Println("status", resp.StatusCode)
		_, err = io.Copy(os.Stdout, resp.Body)
		return err
	case "eat":
		fmt.Println("eating")
		eat(number(0, 1))
		fmt.Println("ate")
		waitSignal(syscall.SIGTERM, 0)
	case "eatchild":
		cmd := exec.Command("/proc/self/exe", "eat", arg(0, "1"))
		err := cmd.Run()
		fmt.Println("child:", err)
		waitSignal(syscall.SIGTERM, 0)
	case "burn":
		go waitSignal(syscall.SIGTERM, 0)
		fmt.Println("burning")
		for x := uint64(1); ; x = x*2862933555777941757 + 3037000493 {
			if x == 0 {
				fmt.Println(x)
			}
		}
	case "spawn":
		cmd := exec.Command("/proc/self/exe", append([]string{"stubborn"}, args...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println("spawned")
		waitSignal(syscall.SIGTERM, 0)
	case "env":
		for _, kv := range os.Environ() {
			fmt.Println(kv)
		}
	case "args":
		fmt.Println(strings.Join(os.Args[1:], " "))
	case "id":
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		fmt.Printf("uid=%d gid=%d pid=%d hostname=%s dir=%s\n", os.Getuid(), os.Getgid(), os.Getpid(), host, dir)
	case "cat":
		f, err := os.Open(arg(0, ""))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(os.Stdout, f)
		return err
	case "stamp", "stay":
		if _, err := os.Stdout.WriteString(strconv.FormatInt(firstInstruction.UnixNano(), 10) + "\n"); err != nil {
			return err
		}
		if what == "stay" {
			waitSignal(syscall.SIGTERM, 0)
		}
	case "send":
		return send("", arg(0, ""), args[min(1, len(args)):])
	case "sendfrom":
		return send(arg(0, ""), arg(1, ""), args[min(2, len(args)):])
	case "dial":
		dial(args)
	case "frames":
		return frames(args)
	case "forbid":
		forbid(arg(0, "8:0"), number(1, 1))
	case "relay":
		return relay(arg(0, ":80"), arg(1, ""))
	case "hog":
		hog(arg(0, ""), number(1, 1))
	default:
		return fmt.Errorf("unknown subcommand %q", what)
	}
	return nil
}

// waitSignal ends the process when the signal comes. The first process of a PID namespace has no
// default action for signals, so it must ask for them.
func waitSignal(s os.Signal, code int) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, s)
	<-c
	os.Exit(code)
}

// lines writes n lines "00000001 ......" of width bytes including the newline.
func lines(n, width int) error {
	w := bufio.NewWriterSize(os.Stdout, 4096)
	for i := 1; i <= n; i++ {
		line := fmt.Sprintf("%08d", i)
		if pad := width - len(line) - 1; pad > 0 {
			line += strings.Repeat(".", pad)
		}
		if _, err := w.WriteString(line + "\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

func eat(mib int) {
	var kept [][]byte
	for range mib {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
	_ = kept
}

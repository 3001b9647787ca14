package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is the version of what goes over the socket: one JSON object a line, a Request answered by
// a Response, one after the other on a connection. Hello and Exit keep their form for ever, so that
// any two versions can part.
const Protocol = 1

// Operations.
const (
	OpHello  = "hello"  // who are you
	OpAttach = "attach" // read the FIFOs of container ID, whose Record is on disk
	OpDetach = "detach" // read what is left in them, make it durable, and close them
	OpExit   = "exit"   // stop at a chunk's end; what is unread stays in the FIFOs
	OpWatch  = "watch"  // answered when the process exits, that is by the connection's end
)

// Request is one line from the agent.
type Request struct {
	Op string `json:"op"`
	ID string `json:"id,omitempty"`
}

// Response is one line from the logger.
type Response struct {
	Error string `json:"error,omitempty"`
	Over  bool   `json:"over,omitempty"` // the error is ErrOver
	// To hello:
	Protocol int    `json:"protocol,omitempty"`
	Build    string `json:"build,omitempty"`
	PID      int    `json:"pid,omitempty"`
}

// ErrFailed is the error of a request that reached the process and failed there.
var ErrFailed = errors.New("logger")

// ErrOver is the error of a request that reached a process as it ended: ask its successor.
var ErrOver = errors.New("the logger is ending")

// Call sends one request on a connection of its own.
func Call(ctx context.Context, socket string, req Request) (Response, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return Response{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := json.Marshal(req)
	if err != nil {
		return Response{}, err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return Response{}, fmt.Errorf("ask the logger to %s: %w", req.Op, err)
	}
	line, err := bufio.NewReader(conn).ReadSlice('\n')
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Response{}, fmt.Errorf("ask the logger to %s: %w", req.Op, err)
	}
	var resp Response
	if err := json.Unmarshal(line, &resp); err != nil {
		return Response{}, fmt.Errorf("ask the logger to %s: %w", req.Op, err)
	}
	if resp.Over {
		return resp, ErrOver
	}
	if resp.Error != "" {
		return resp, fmt.Errorf("%w: %s", ErrFailed, resp.Error)
	}
	return resp, nil
}

// Watch returns when the process ends or cannot be reached, or with ctx.
func Watch(ctx context.Context, socket string) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "{\"op\":%q}\n", OpWatch); err != nil {
		return
	}
	conn.Read(make([]byte, 1))
}

// Peer is the process that listens on the socket.
func Peer(socket string) (pid int, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	cred, err := credentials(conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// credentials are those of the process at the other end, as it began to listen or to connect.
func credentials(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return nil, e
	}
	return cred, err
}

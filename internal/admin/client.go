package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/ecs/history"
)

// ErrNotRunning says that no Berth answers on the socket.
var ErrNotRunning = errors.New("berth is not running on this data directory")

// Client speaks to a running Berth.
type Client struct{ http *http.Client }

// NewClient returns a client for the socket; it connects with the first call.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
				return nil, fmt.Errorf("%w: start it with `berth up`", ErrNotRunning)
			}
			return nil, fmt.Errorf("%w (%v)", ErrNotRunning, err)
		}
		return c, nil
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}}
}

// Status asks how things are.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	return st, c.get(ctx, "/v1/status", &st)
}

// Down has all tasks stopped and Berth end. Each line tells how far it is.
func (c *Client) Down(ctx context.Context, line func(string)) error {
	return c.stream(ctx, "POST", "/v1/down", nil, func(e event) error {
		if e.Text != "" {
			line(e.Text)
		}
		return nil
	})
}

// Exit has Berth end as SIGTERM does: its tasks go on.
func (c *Client) Exit(ctx context.Context) error {
	res, err := c.do(ctx, "POST", "/v1/exit", nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// Logs delivers output, oldest first.
func (c *Client) Logs(ctx context.Context, q LogQuery, line func(LogLine) error) error {
	v := url.Values{"task": {q.Task}, "container": {q.Container},
		"follow": {strconv.FormatBool(q.Follow)}, "tail": {strconv.FormatInt(q.Tail, 10)}}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	return c.stream(ctx, "GET", "/v1/logs?"+v.Encode(), nil, func(e event) error {
		if e.Line != nil {
			return line(*e.Line)
		}
		return nil
	})
}

// Explain explains a task or a run; of an empty name, the newest failures.
func (c *Client) Explain(ctx context.Context, ref string) ([]history.Explanation, error) {
	var out []history.Explanation
	return out, c.get(ctx, "/v1/explain?"+url.Values{"of": {ref}}.Encode(), &out)
}

// Events delivers events, oldest first, as JSON; missed is told of those that are no longer kept.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(json.RawMessage) error, missed func(string) error) error {
	v := url.Values{"follow": {strconv.FormatBool(q.Follow)}}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	return c.stream(ctx, "GET", "/v1/events?"+v.Encode(), nil, func(e event) error {
		switch {
		case e.Event != nil:
			return each(e.Event)
		case e.Text != "":
			return missed(e.Text)
		}
		return nil
	})
}

// Import sends an image archive and answers the names it was stored under.
func (c *Client) Import(ctx context.Context, r io.Reader, progress func(agent.ImageProgress)) ([]string, error) {
	var names []string
	// Closing is the caller's: an http.Client would close what can be closed.
	err := c.stream(ctx, "POST", "/v1/images/import", io.NopCloser(r), func(e event) error {
		if e.Progress != nil {
			progress(*e.Progress)
		}
		names = append(names, e.Names...)
		return nil
	})
	return names, err
}

// PullImage has an image fetched from its registry.
func (c *Client) PullImage(ctx context.Context, ref string, progress func(agent.ImageProgress)) (agent.Image, error) {
	var img agent.Image
	err := c.stream(ctx, "POST", "/v1/images/pull?"+url.Values{"ref": {ref}}.Encode(), nil, func(e event) error {
		if e.Progress != nil {
			progress(*e.Progress)
		}
		if e.Image != nil {
			img = *e.Image
		}
		return nil
	})
	return img, err
}

// ListImages lists the host's images.
func (c *Client) ListImages(ctx context.Context) ([]agent.ImageInfo, error) {
	var images []agent.ImageInfo
	return images, c.get(ctx, "/v1/images", &images)
}

// RemoveImage removes an image.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	res, err := c.do(ctx, "DELETE", "/v1/images?"+url.Values{"ref": {ref}}.Encode(), nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (c *Client) get(ctx context.Context, path string, out any) error {
	res, err := c.do(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer of berth: %w", err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask berth: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is made up and would only puzzle
		}
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return res, nil
}

// stream reads events until the answer is whole. An answer that breaks off is an error.
func (c *Client) stream(ctx context.Context, method, path string, body io.Reader, each func(event) error) error {
	res, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(bufio.NewReader(res.Body))
	for {
		var e event
		if err := dec.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("berth ended before its answer did: %w", err)
		}
		switch {
		case e.Error != "":
			return errors.New(e.Error)
		case e.Done:
			return nil
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthhq/berth/internal/admin"
	"github.com/berthhq/berth/internal/instance"
)

// connect finds the running Berth of the data directory.
func (o *options) connect() (*admin.Client, *instance.Instance, error) {
	in, err := instance.Peek(o.dataDir)
	if err != nil {
		return nil, nil, err
	}
	return admin.NewClient(in.AdminSocket()), in, nil
}

func envCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print what a shell needs to reach this Berth: eval \"$(berth env)\"",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			in, err := instance.Peek(o.dataDir)
			if err != nil {
				return err
			}
			keyID, secret, err := rootKey(in)
			if err != nil {
				return err
			}
			s := in.Settings()
			listen := s.Listen
			if c.Flags().Changed("listen") || listen == "" {
				listen = o.listen
			}
			fmt.Fprintf(c.OutOrStdout(), `export AWS_ENDPOINT_URL=%[1]s
export AWS_ACCESS_KEY_ID=%[2]s
export AWS_SECRET_ACCESS_KEY=%[3]s
export AWS_DEFAULT_REGION=%[4]s
export AWS_REGION=%[4]s
unset AWS_SESSION_TOKEN AWS_PROFILE
# AWS CLI before 1.29 and 2.13 do not read AWS_ENDPOINT_URL:
alias aws='aws --endpoint-url %[1]s'
`, endpoint(listen), keyID, secret, s.Region)
			return nil
		},
	}
}

func statusCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show hosts, tasks and what there is to know", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			st, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			printStatus(c.OutOrStdout(), st)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(w io.Writer, st admin.Status) {
	mode := ""
	if st.Dev {
		mode = ", --dev"
	}
	fmt.Fprintf(w, "berth %s at %s (account %s, region %s%s), up %s, pid %d\n", st.Version, st.Endpoint,
		st.Account, st.Region, mode, time.Since(st.StartedAt).Round(time.Second), st.PID)
	fmt.Fprintf(w, "data in %s, instance %s", st.DataDir, st.Instance)
	if st.Subnet != "" {
		fmt.Fprintf(w, ", task addresses from %s", st.Subnet)
	}
	fmt.Fprintln(w)
	for _, n := range st.Notices {
		fmt.Fprintln(w, "note:", n)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nHOST\tAGENT\tCPU\tMEMORY")
	for _, h := range st.Hosts {
		agent := "connected"
		if !h.Connected {
			agent = "gone"
		}
		fmt.Fprintf(t, "%s\t%s\t%d of %d units reserved\t%d of %d MiB reserved\n", h.Hostname, agent,
			h.CPUReserved, h.CPUUnits, h.MemoryReserved, h.MemoryMiB)
	}
	if len(st.Tasks) > 0 {
		fmt.Fprintln(t, "\nCLUSTER\tTASK\tDEFINITION\tSTATUS\tADDRESS\tAGE\tREASON")
	}
	for _, k := range st.Tasks {
		status := k.LastStatus
		if k.DesiredStatus != k.LastStatus {
			status += " → " + k.DesiredStatus
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Cluster, k.ID, k.Definition, status, k.Address,
			time.Since(k.CreatedAt).Round(time.Second), k.StoppedReason)
	}
	t.Flush()
}

func logsCommand(o *options) *cobra.Command {
	var q admin.LogQuery
	var since time.Duration
	cmd := &cobra.Command{
		Use: "logs TASK", Short: "Print what a task's containers wrote (ARN, ID or the beginning of an ID)",
		Args: named(1, "name one TASK: its ARN, its ID or the beginning of its ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			q.Task = args[0]
			if since > 0 {
				q.Since = time.Now().Add(-since)
			}
			p := &linePrinter{out: c.OutOrStdout(), errOut: c.ErrOrStderr()}
			err = client.Logs(c.Context(), q, p.print)
			if q.Follow && c.Context().Err() != nil {
				return nil // the user's Ctrl-C is how following ends
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on as the task writes")
	cmd.Flags().StringVar(&q.Container, "container", "", "only this container")
	cmd.Flags().Int64Var(&q.Tail, "tail", -1, "only the last lines of each container")
	cmd.Flags().DurationVar(&since, "since", 0, "only what is younger than this, such as 10m")
	return cmd
}

// named has a command take n arguments, or any but none if n is negative, and otherwise say what to name.
func named(n int, say string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if n < 0 && len(args) > 0 || len(args) == n {
			return nil
		}
		return errors.New(say)
	}
}

// linePrinter writes what each stream wrote to the same stream here, byte for byte. Lines of several
// containers are told apart by the container's name.
type linePrinter struct {
	out, errOut io.Writer
	open        map[string]bool // containers in the middle of a line
}

func (p *linePrinter) print(l admin.LogLine) error {
	w := p.out
	if l.Stream == "stderr" {
		w = p.errOut
	}
	text := l.Text
	if !l.Partial {
		text = append(text, '\n')
	}
	key := l.Container + "/" + l.Stream
	if l.Several && !p.open[key] {
		text = append([]byte(l.Container+" | "), text...)
	}
	if p.open == nil {
		p.open = map[string]bool{}
	}
	p.open[key] = l.Partial
	_, err := w.Write(text)
	return err
}

func imageCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Manage this host's images"}
	var fromDocker string
	imp := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Import a docker-archive or an OCI layout, or an image of a local engine",
		Args: func(c *cobra.Command, args []string) error {
			if (fromDocker != "") == (len(args) == 1) || len(args) > 1 {
				return errors.New("name a FILE, - for standard input, or --from-docker NAME")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			var in io.ReadCloser
			var size int64
			switch {
			case fromDocker != "":
				in, err = saveFromEngine(c, fromDocker)
			case args[0] == "-":
				in = io.NopCloser(c.InOrStdin())
			default:
				var f *os.File
				if f, err = os.Open(args[0]); err == nil {
					in = f
					if info, serr := f.Stat(); serr == nil {
						size = info.Size()
					}
				}
			}
			if err != nil {
				return fmt.Errorf("import image: %w", err)
			}
			bars := newBars(c.ErrOrStderr())
			names, err := client.Import(c.Context(), in, bars.sized(size))
			bars.wait(err)
			// What an engine says of its failure explains better than the archive it did not write.
			if cerr := in.Close(); cerr != nil {
				err = errors.Join(cerr, err)
			}
			if err != nil {
				return fmt.Errorf("import image: %w", err)
			}
			fmt.Fprintln(c.OutOrStdout(), strings.Join(names, "\n"))
			return nil
		},
	}
	imp.Flags().StringVar(&fromDocker, "from-docker", "", "take the image of this name from a local Docker or Podman")
	ls := &cobra.Command{
		Use: "ls", Short: "List images", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			images, err := client.ListImages(c.Context())
			if err != nil {
				return err
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(t, "IMAGE\tDIGEST\tSIZE\tCREATED")
			for _, i := range images {
				fmt.Fprintf(t, "%s\t%.19s\t%.1f MB\t%s\n", i.Ref, i.Digest, float64(i.SizeBytes)/1e6, i.CreatedAt.Format(time.DateTime))
			}
			return t.Flush()
		},
	}
	rm := &cobra.Command{
		Use: "rm IMAGE...", Short: "Remove images", Args: named(-1, "name the IMAGES to remove; `berth image ls` lists them"),
		RunE: func(c *cobra.Command, args []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			for _, ref := range args {
				if err := client.RemoveImage(c.Context(), ref); err != nil {
					return fmt.Errorf("remove image %s: %w", ref, err)
				}
			}
			return nil
		},
	}
	pull := &cobra.Command{
		Use: "pull IMAGE", Short: "Fetch an image from its registry", Args: named(1, "name one IMAGE, such as registry.example/team/app:1"),
		RunE: func(c *cobra.Command, args []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			bars := newBars(c.ErrOrStderr())
			img, err := client.PullImage(c.Context(), args[0], bars.update)
			bars.wait(err)
			if err != nil {
				return fmt.Errorf("pull image: %w", err)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s@%s\n", img.Ref, img.Digest)
			return nil
		},
	}
	cmd.AddCommand(imp, ls, rm, pull)
	return cmd
}

// saveFromEngine streams `docker save` or `podman save`. Closing it waits for the engine's client and
// answers its failure.
func saveFromEngine(c *cobra.Command, name string) (io.ReadCloser, error) {
	engine, err := exec.LookPath("docker")
	if err != nil {
		if engine, err = exec.LookPath("podman"); err != nil {
			return nil, errors.New("neither docker nor podman is on the PATH")
		}
	}
	save := exec.CommandContext(c.Context(), engine, "save", "--", name)
	var stderr strings.Builder
	save.Stderr = &stderr
	out, err := save.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := save.Start(); err != nil {
		return nil, err
	}
	return &engineOutput{ReadCloser: out, save: save, stderr: &stderr}, nil
}

type engineOutput struct {
	io.ReadCloser
	save   *exec.Cmd
	stderr *strings.Builder
}

func (e *engineOutput) Close() error {
	e.ReadCloser.Close()
	if err := e.save.Wait(); err != nil {
		return fmt.Errorf("%s: %s", e.save.Path, strings.TrimSpace(e.stderr.String()))
	}
	return nil
}

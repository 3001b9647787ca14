package logdriver

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Modes, as the option mode names them.
const (
	modeBlocking    = "blocking"
	modeNonBlocking = "non-blocking"
)

// checkMode checks the options that every driver has, with Docker's words.
func checkMode(options map[string]string) error {
	mode, ok := options["mode"]
	if !ok || mode == "" {
		mode = modeNonBlocking // what Amazon's agent passes to Docker
	}
	if mode != modeBlocking && mode != modeNonBlocking {
		return fmt.Errorf("logger: logging mode not supported: %s", mode)
	}
	if size, ok := options["max-buffer-size"]; ok {
		if mode != modeNonBlocking {
			return errors.New("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		if _, err := parseSize(size); err != nil {
			return fmt.Errorf("error parsing option max-buffer-size: %w", err)
		}
	}
	return nil
}

var sizePattern = regexp.MustCompile(`^(\d+(?:\.\d+)?) ?([kmgtpKMGTP])?[iI]?[bB]?$`)

// parseSize reads a number of bytes as Docker does: "25m", "1.5 GiB", powers of 1024.
func parseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	if m[2] != "" {
		n *= float64(int64(1) << (10 * (1 + strings.Index("kmgtp", strings.ToLower(m[2])))))
	}
	if n >= 1<<62 {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	return int64(n), nil
}

// checkNames refuses options that the driver does not have.
func checkNames(driver string, options map[string]string, names ...string) error {
	known := map[string]bool{"mode": true, "max-buffer-size": true}
	for _, n := range names {
		known[n] = true
	}
	var unknown string
	for name := range options {
		if !known[name] && (unknown == "" || name < unknown) {
			unknown = name
		}
	}
	if unknown != "" {
		return fmt.Errorf("unknown log opt '%s' for %s log driver", unknown, driver)
	}
	return nil
}

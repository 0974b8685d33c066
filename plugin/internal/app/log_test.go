package app

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLogNeverWaits: while nobody reads, lines are lost whole, and what comes through are whole lines.
func TestLogNeverWaits(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log := newPipeWriter(w)
	const lines = 500
	for i := range lines { // more than any pipe holds; it would wait for ever
		line := fmt.Sprintf("%04d%s\n", i, strings.Repeat("x", i*20))
		if n, writeErr := log.Write([]byte(line)); n != len(line) || writeErr != nil {
			t.Fatalf("Write = %d, %v", n, writeErr)
		}
	}
	if err = unix.SetNonblock(int(w.Fd()), false); err != nil {
		t.Fatal(err)
	}
	if err = w.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	got := bytes.Split(bytes.TrimSuffix(all, []byte("\n")), []byte("\n"))
	if len(got) < 10 || len(got) == lines {
		t.Errorf("%d lines came through", len(got))
	}
	for _, line := range got {
		var i int
		if _, err := fmt.Sscanf(string(line[:4]), "%d", &i); err != nil {
			t.Fatalf("%.20q begins in the middle: %v", line, err)
		}
		if whole := 4 + i*20; len(line) != whole && !(bytes.HasSuffix(line, []byte("...")) && len(line) == maxLine-1) {
			t.Fatalf("line %d has %d bytes of %d", i, len(line), whole)
		}
	}
}

func TestLongLineIsCut(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	line := []byte(strings.Repeat("x", 100<<10) + "\n")
	if n, err := newPipeWriter(w).Write(line); n != len(line) || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(r); len(got) != maxLine || !bytes.HasSuffix(got, []byte("...\n")) {
		t.Errorf("%d bytes came through", len(got))
	}
}

package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolterrors "go.etcd.io/bbolt/errors"
	"go.uber.org/goleak"

	"github.com/seaway-net/seaway/plugin/internal/store"
	"github.com/seaway-net/seaway/plugin/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	dir := t.TempDir()
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := Open(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	_, err = Open(path)
	if !errors.Is(err, bolterrors.ErrTimeout) || !strings.Contains(err.Error(), "another process has it open") {
		t.Fatalf("second Open: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged")
	if err := os.WriteFile(damaged, make([]byte, 1<<15), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{damaged, filepath.Join(dir, "absent", "store"), dir} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s) = %v", path, err)
		}
	}
}

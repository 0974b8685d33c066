package journal

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		fmt.Println("error", crashChild(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// open opens a journal that must not need recovery.
func open(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if j.Recovered() != "" {
		_ = j.Close()
		t.Fatalf("see %s: %v", j.Recovered(), j.Damage())
	}
	t.Cleanup(func() { _ = j.Close() }) // also after the test closed it: no harm
	return j
}

func shut(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// update makes a change that must succeed.
func update(t testing.TB, j *Journal, fn func(*Tx) error) {
	t.Helper()
	if err := j.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, j *Journal, fn func(*Tx) error) {
	t.Helper()
	if err := j.View(fn); err != nil {
		t.Fatal(err)
	}
}

func addr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
}

func TestRecordsComeBackWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	network := fabric.Network{ID: "n1", MTU: 1400, Internal: true, Subnets: []fabric.Subnet{{
		Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: addr(1), Aux: map[string]netip.Addr{"router": addr(9)},
	}}}
	pool := Pool{
		ID: "10.1.0.0/24#x", Subnet: netip.MustParsePrefix("10.1.0.0/24"), Gateway: addr(1), Network: "n1",
		Range: netip.MustParsePrefix("10.1.0.128/25"), Aux: []netip.Addr{addr(9)}, Scope: "cluster",
	}
	held := Copy{EngineID: "e1", Network: network, Pools: []fabric.PoolID{pool.ID}, OwnIPAM: true, IfPrefix: "eth"}
	endpoint := Endpoint{
		Endpoint: fabric.Endpoint{ID: "p1", Network: "n1", IPv4: netip.MustParsePrefix("10.1.0.2/24"), MAC: fabric.MACFor(addr(2))},
		Engine:   "e1", Sandbox: "/run/docker/netns/1",
		Plug: &fabric.Plug{Name: "eth0", MTU: 1400, Routes: []fabric.Route{{Gateway: addr(1), Table: 254}}},
	}
	address := Address{
		Network: "n1", Addr: addr(2), State: Bound, Token: "t", Revision: 7, Container: "web", Endpoint: "p1", Seq: 3, Replayed: true,
	}
	update(t, j, func(tx *Tx) error {
		return errors.Join(tx.Pools().Put(pool.ID, pool), tx.Copies().Put(held.EngineID, held),
			tx.Endpoints().Put(endpoint.ID, endpoint), tx.Addresses().Put(address.Key(), address))
	})
	shut(t, j)
	j = open(t, path)
	view(t, j, func(tx *Tx) error {
		same(t, tx.Pools(), pool.ID, pool)
		same(t, tx.Copies(), held.EngineID, held)
		same(t, tx.Endpoints(), endpoint.ID, endpoint)
		same(t, tx.Addresses(), "n1/10.1.0.2", address)
		return nil
	})
}

func same[K ~string, V any](t *testing.T, table Table[K, V], key K, want V) {
	t.Helper()
	got, ok, err := table.Get(key)
	if err != nil || !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("%s %q = %+v, %v, %v, want %+v", table.name, key, got, ok, err, want)
	}
	if all, err := table.All(); err != nil || len(all) != 1 {
		t.Errorf("All of %s = %v, %v", table.name, all, err)
	}
}

func TestTable(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	view(t, j, func(tx *Tx) error { // a table that nothing was ever put in
		_, ok, err := tx.Pools().Get("absent")
		all, allErr := tx.Pools().All()
		if ok || len(all) != 0 || tx.Pools().Put("a", Pool{}) == nil {
			t.Errorf("an empty table: %v, %v, or it can be changed in a View", ok, all)
		}
		return errors.Join(err, allErr)
	})
	update(t, j, func(tx *Tx) error {
		var errs []error
		for i, network := range []fabric.NetworkID{"a", "ab", "a", "b"} {
			a := Address{Network: network, Addr: addr(i), State: Owned}
			errs = append(errs, tx.Addresses().Put(a.Key(), a))
		}
		return errors.Join(append(errs, tx.Addresses().Delete("absent"), tx.Pools().Delete("absent"))...)
	})
	update(t, j, func(tx *Tx) error { // changing while ranging
		all, err := tx.AddressesOf("a")
		if len(all) != 2 || all[0].Addr != addr(0) || all[1].Addr != addr(2) {
			t.Errorf("addresses of a: %v", all)
		}
		for _, a := range all {
			err = errors.Join(err, tx.Addresses().Delete(a.Key()))
		}
		return err
	})
	view(t, j, func(tx *Tx) error {
		all, err := tx.Addresses().All()
		if len(all) != 2 || all[0].Network != "ab" || all[1].Network != "b" {
			t.Errorf("left: %v", all)
		}
		return err
	})
}

func TestUndecodableRecordIsAnError(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	update(t, j, func(tx *Tx) error {
		return Table[string, string]{tx, "pools"}.Put("p", "no pool")
	})
	view(t, j, func(tx *Tx) error {
		_, _, err := tx.Pools().Get("p")
		_, allErr := tx.Pools().All()
		for _, err := range []error{err, allErr} {
			if err == nil || !strings.Contains(err.Error(), `read "p" of the journal's pools`) {
				t.Errorf("error %v", err)
			}
		}
		return nil
	})
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	update(t, j, func(tx *Tx) error { return tx.Pools().Put("kept", Pool{ID: "kept"}) })
	mine := errors.New("mine")
	err := j.Update(func(tx *Tx) error {
		_, err := tx.NextSeq()
		return errors.Join(err, tx.Pools().Delete("kept"), tx.Pools().Put("new", Pool{}), mine)
	})
	if !errors.Is(err, mine) {
		t.Fatalf("Update = %v", err)
	}
	func() { // a bug in the function is not taken for a damaged disk, and changes nothing either
		defer func() {
			if recover() == nil {
				t.Error("a panic was swallowed")
			}
		}()
		_ = j.Update(func(tx *Tx) error {
			_ = tx.Pools().Delete("kept")
			var none *Pool
			return tx.Pools().Put(none.ID, *none)
		})
	}()
	for range 2 {
		view(t, j, func(tx *Tx) error {
			same(t, tx.Pools(), "kept", Pool{ID: "kept"})
			return nil
		})
		shut(t, j)
		j = open(t, path)
	}
	update(t, j, func(tx *Tx) error {
		seq, err := tx.NextSeq()
		if seq != 1 {
			t.Errorf("NextSeq = %d after an update that failed", seq)
		}
		return err
	})
}

func TestNextSeqGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	want := uint64(0)
	for range 3 {
		j := open(t, path)
		update(t, j, func(tx *Tx) error {
			for range 2 {
				want++
				if got, err := tx.NextSeq(); err != nil || got != want {
					t.Errorf("NextSeq = %d, %v, want %d", got, err, want)
				}
			}
			return nil
		})
		shut(t, j)
	}
}

func TestHostStays(t *testing.T) {
	dir := t.TempDir()
	j := open(t, filepath.Join(dir, "journal"))
	host := j.Host()
	if len(host) != 32 {
		t.Fatalf("Host = %q", host)
	}
	shut(t, j)
	if again := open(t, filepath.Join(dir, "journal")).Host(); again != host {
		t.Fatalf("Host = %s, before %s", again, host)
	}
	if other := open(t, filepath.Join(dir, "other")).Host(); other == host {
		t.Fatalf("two journals have the Host %s", host)
	}
}

func TestNewerSchemaIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	update(t, j, func(tx *Tx) error {
		return errors.Join(metaTable[int](tx).Put(keySchema, schema+1),
			Table[string, string]{tx, "of a newer Seaway"}.Put("k", "v"))
	})
	shut(t, j)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "schema 2") {
		t.Fatalf("Open = %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Fatalf("the newer journal was changed (%v)", err)
	}
}

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Fatalf("second Open = %v", err)
	}
	shut(t, j)
	open(t, path)
}

func TestUpdateThatChangesNothingWritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	put := func(tx *Tx) error {
		return errors.Join(tx.Pools().Put("p", Pool{ID: "p"}), tx.Pools().Delete("absent"))
	}
	update(t, j, put)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	update(t, j, put)
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Fatalf("the file has changed (%v)", err)
	}
}

func TestUnfinishedNewJournalIsForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if _, err := os.Lstat(path + ".new"); err == nil {
		t.Fatal("it is still there")
	}
}

func TestClosedJournalRefuses(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	shut(t, j)
	nothing := func(*Tx) error { return nil }
	for _, err := range []error{j.View(nothing), j.Update(nothing)} {
		if err == nil || !strings.Contains(err.Error(), "journal: database not open") {
			t.Errorf("error %v", err)
		}
	}
}

// tmpfs returns a directory on a file system of its own, filled by the function and then remounted with the
// flags. It is unmounted at once and lives as long as the directory is open, so that nothing is left of it
// however the test ends.
func tmpfs(t *testing.T, size string, flags uintptr, fill func(dir string)) string {
	t.Helper()
	at := t.TempDir()
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	fill(at)
	remountErr := syscall.Mount("", at, "", syscall.MS_REMOUNT|flags, "")
	f, openErr := os.Open(at)
	if err := errors.Join(remountErr, openErr, syscall.Unmount(at, syscall.MNT_DETACH)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
}

func TestFullDisk(t *testing.T) {
	dir := tmpfs(t, "128k", 0, func(string) {})
	j := open(t, filepath.Join(dir, "journal"))
	put := func(i int) error {
		return j.Update(func(tx *Tx) error {
			p := Pool{ID: fabric.PoolID(fmt.Sprintf("%04d", i)), Scope: strings.Repeat("x", 2000)}
			return tx.Pools().Put(p.ID, p)
		})
	}
	stored := 0
	for put(stored) == nil {
		stored++
	}
	if err := put(stored); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "write journal") {
		t.Fatalf("after %d records: %v", stored, err)
	}
	count := func() (n int) {
		view(t, j, func(tx *Tx) error {
			all, err := tx.Pools().All()
			n = len(all)
			return err
		})
		return n
	}
	if got := count(); got != stored || stored == 0 {
		t.Fatalf("%d records after %d were stored", got, stored)
	}
	shut(t, j)
	j = open(t, filepath.Join(dir, "journal"))
	if got := count(); got != stored {
		t.Fatalf("%d records after %d were stored and the journal was opened again", got, stored)
	}
	shut(t, j)
	if _, err := Open(filepath.Join(dir, "second")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a new journal on a full disk: %v", err)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := tmpfs(t, "1m", syscall.MS_RDONLY, func(dir string) { shut(t, open(t, filepath.Join(dir, "journal"))) })
	if _, err := Open(filepath.Join(dir, "journal")); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("Open = %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent", "journal")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("Open in no directory = %v", err)
	}
}

func BenchmarkUpdate(b *testing.B) {
	j := open(b, filepath.Join(b.TempDir(), "journal"))
	for i := range 1000 { // what is there already should not matter much
		a := Address{Network: "n", Addr: addr(i), State: Owned}
		update(b, j, func(tx *Tx) error { return tx.Addresses().Put(a.Key(), a) })
	}
	i := 0
	for b.Loop() {
		i++
		a := Address{Network: "n", Addr: addr(i % 1000), State: Bound, Revision: int64(i)}
		update(b, j, func(tx *Tx) error { return tx.Addresses().Put(a.Key(), a) })
	}
}

// memoryDir returns a directory in memory where there is one: for tests that write a great deal, and that no
// loss of power interrupts.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "seaway-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Package drivertest drives both drivers together as the engine does: Host is one Seaway without a kernel,
// over a real journal and a real store on disk, and Engine issues the calls of an engine in its order. It
// is for tests only.
package drivertest

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"pgregory.net/rapid"

	"github.com/seaway-net/seaway/plugin/internal/fabric"
	"github.com/seaway-net/seaway/plugin/internal/ipamdriver"
	"github.com/seaway-net/seaway/plugin/internal/journal"
	"github.com/seaway-net/seaway/plugin/internal/kernel"
	"github.com/seaway-net/seaway/plugin/internal/netdriver"
	"github.com/seaway-net/seaway/plugin/internal/store"
	"github.com/seaway-net/seaway/plugin/internal/store/local"
)

// Host is one Seaway. Its files are real, its kernel and containers are not.
type Host struct {
	tb    rapid.TB
	dir   string
	gen   int
	local *local.Store
	disk  *journal.Journal

	// Fault, if set, is asked before and after every change on disk. It may panic with Crash, or return an
	// error that the change then has.
	Fault func(Point) error
	// Near are the host's neighbours.
	Near []ipamdriver.Neighbour
	// Kernel is what the network driver wants of the kernel.
	Kernel *Kernel
	// Containers are the namespaces that there are.
	Containers *Containers

	Net  *netdriver.Driver
	IPAM *ipamdriver.Driver
}

// Point is a moment at which a Host can be hit.
type Point struct {
	What  string // journal or store
	After bool   // the change is on disk
}

// Crash is the panic that ends a Host's process; see Host.Restart.
type Crash struct{}

// NewHost makes a Seaway with its files below a directory.
func NewHost(tb rapid.TB, dir string) *Host {
	tb.Helper()
	h := &Host{tb: tb, dir: dir, Kernel: NewKernel(), Containers: NewContainers()}
	if err := os.MkdirAll(h.path(), 0o700); err != nil {
		tb.Fatal(err)
	}
	h.open()
	return h
}

func (h *Host) path() string { return filepath.Join(h.dir, fmt.Sprint(h.gen)) }

// open opens the files and makes the drivers, as app does.
func (h *Host) open() {
	h.tb.Helper()
	var err error
	if h.disk, err = journal.Open(filepath.Join(h.path(), journalFile)); err != nil {
		h.tb.Fatal(err)
	}
	if h.local, err = local.Open(filepath.Join(h.path(), storeFile)); err != nil {
		h.tb.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	h.IPAM = ipamdriver.New(ipamdriver.Config{
		Journal: faultyJournal{h.disk, h}, Store: faultyStore{h.local, h}, Log: log,
		Pool: netip.MustParsePrefix("10.200.0.0/20"), Size: 24,
		Neighbours: func(context.Context) ([]ipamdriver.Neighbour, error) { return h.Near, nil },
	})
	h.Net = netdriver.New(netdriver.Config{
		Journal: faultyJournal{h.disk, h}, Store: faultyStore{h.local, h}, Log: log,
		Kernel: h.Kernel, Containers: h.Containers,
		MTU: func() int { return 1450 }, Forget: h.IPAM.Forget, Release: h.IPAM.ReleaseFrom,
	})
}

const (
	journalFile = "journal.db"
	storeFile   = "store.db"
)

// Restart ends the process as kill -9 does, and begins a new one on what it left on the disk. The files
// are copied, as closing them in order might write.
func (h *Host) Restart() {
	h.tb.Helper()
	if err := h.restart(true); err != nil {
		h.tb.Fatal(err)
	}
}

// RestartWithoutJournal is Restart, after the journal was lost.
func (h *Host) RestartWithoutJournal() {
	h.tb.Helper()
	if err := h.restart(false); err != nil {
		h.tb.Fatal(err)
	}
}

func (h *Host) restart(withJournal bool) error {
	before, oldJournal, oldStore := h.path(), h.disk, h.local
	h.gen++
	err := os.Mkdir(h.path(), 0o700)
	for _, name := range []string{journalFile, storeFile} {
		if err != nil {
			return err
		}
		if name == journalFile && !withJournal {
			err = os.WriteFile(filepath.Join(h.path(), name), []byte("not a journal"), 0o600)
			continue
		}
		var content []byte
		if content, err = os.ReadFile(filepath.Join(before, name)); err == nil {
			err = os.WriteFile(filepath.Join(h.path(), name), content, 0o600)
		}
	}
	if err != nil {
		return err
	}
	_, _ = oldJournal.Close(), oldStore.Close()
	_ = os.RemoveAll(before)
	fault := h.Fault
	h.Fault = nil
	h.open()
	h.Fault = fault
	if err = h.begin(); err != nil && fault != nil {
		err = h.begin() // the engine starts a plugin again that is of no use
	}
	return err
}

// begin is what app does before the first verb. It may crash as well, and is then done again.
func (h *Host) begin() (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case Crash:
			err = h.restart(true)
		default:
			panic(p)
		}
	}()
	if err = h.Net.Tidy(context.Background()); err != nil {
		return err
	}
	desired, err := h.Net.Desired()
	if err != nil {
		return err
	}
	h.Kernel.Load(desired)
	return nil
}

// Close closes the files.
func (h *Host) Close() {
	_, _ = h.disk.Close(), h.local.Close()
}

// Sweep does what app does every 30 seconds.
func (h *Host) Sweep() error {
	err := h.Net.Sweep(context.Background())
	if second := h.IPAM.Sweep(context.Background()); err == nil {
		err = second
	}
	return err
}

// Disk is all that the journal and the store hold.
type Disk struct {
	Pools     []journal.Pool
	Copies    []journal.Copy
	Endpoints []journal.Endpoint
	Addresses []journal.Address
	Store     []store.Entry
}

// Disk reads everything.
func (h *Host) Disk() Disk {
	h.tb.Helper()
	var d Disk
	err := h.disk.View(func(tx *journal.Tx) (err error) {
		if d.Pools, err = tx.Pools().All(); err != nil {
			return err
		}
		if d.Copies, err = tx.Copies().All(); err != nil {
			return err
		}
		if d.Endpoints, err = tx.Endpoints().All(); err != nil {
			return err
		}
		d.Addresses, err = tx.Addresses().All()
		return err
	})
	if err != nil {
		h.tb.Fatal(err)
	}
	if d.Store, _, err = h.local.List(context.Background(), ""); err != nil {
		h.tb.Fatal(err)
	}
	return d
}

// Empty reports whether nothing is left but the guard of the subnets.
func (d Disk) Empty() bool {
	for _, entry := range d.Store {
		if entry.Key != store.SubnetGuard {
			return false
		}
	}
	return len(d.Pools)+len(d.Copies)+len(d.Endpoints)+len(d.Addresses) == 0
}

// String lists it, a line for each thing.
func (d Disk) String() string {
	var text string
	for _, p := range d.Pools {
		text += fmt.Sprintf("pool %+v\n", p)
	}
	for _, c := range d.Copies {
		text += fmt.Sprintf("copy %+v\n", c)
	}
	for _, e := range d.Endpoints {
		text += fmt.Sprintf("endpoint %+v\n", e)
	}
	for _, a := range d.Addresses {
		text += fmt.Sprintf("address %+v\n", a)
	}
	for _, s := range d.Store {
		text += fmt.Sprintf("store %s = %s\n", s.Key, s.Value)
	}
	return text
}

// faultyJournal asks the Host before and after each update.
type faultyJournal struct {
	*journal.Journal
	host *Host
}

// Update is the journal's, unless the Host is hit before or after it.
func (j faultyJournal) Update(fn func(*journal.Tx) error) error {
	if err := j.host.hit(Point{What: "journal"}); err != nil {
		return err
	}
	if err := j.Journal.Update(fn); err != nil {
		return err
	}
	return j.host.hit(Point{What: "journal", After: true})
}

// faultyStore asks the Host before and after each commit.
type faultyStore struct {
	*local.Store
	host *Host
}

// Commit is the store's, unless the Host is hit before or after it.
func (s faultyStore) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := s.host.hit(Point{What: "store"}); err != nil {
		return 0, err
	}
	revision, err := s.Store.Commit(ctx, txn)
	if err != nil {
		return 0, err
	}
	return revision, s.host.hit(Point{What: "store", After: true})
}

func (h *Host) hit(p Point) error {
	if h.Fault == nil {
		return nil
	}
	return h.Fault(p)
}

// Kernel is a kernel that can do everything at once.
type Kernel struct {
	Objects map[kernel.Key]kernel.Object
	// Refuse, if set, is Wait's answer.
	Refuse func(kernel.Key) error
}

// NewKernel returns an empty kernel.
func NewKernel() *Kernel { return &Kernel{Objects: make(map[kernel.Key]kernel.Object)} }

// Load replaces what is wanted.
func (k *Kernel) Load(objects []kernel.Object) {
	clear(k.Objects)
	k.Set(objects...)
}

// Set implements netdriver.Kernel.
func (k *Kernel) Set(objects ...kernel.Object) {
	for _, o := range objects {
		k.Objects[o.Key()] = o
	}
}

// Remove implements netdriver.Kernel.
func (k *Kernel) Remove(keys ...kernel.Key) {
	for _, key := range keys {
		delete(k.Objects, key)
	}
}

// Wait implements netdriver.Kernel.
func (k *Kernel) Wait(_ context.Context, key kernel.Key) error {
	if k.Refuse != nil {
		if err := k.Refuse(key); err != nil {
			return err
		}
	}
	if k.Objects[key] == nil {
		return fmt.Errorf("%s is not wanted", key)
	}
	return nil
}

// Containers are the namespaces of containers, by their sandboxes' paths.
type Containers struct {
	Alive map[string]bool
}

// NewContainers returns none.
func NewContainers() *Containers { return &Containers{Alive: make(map[string]bool)} }

// ReadPlug implements netdriver.Containers.
func (c *Containers) ReadPlug(_ context.Context, _, sandbox string) (fabric.Plug, error) {
	if !c.Alive[sandbox] {
		return fabric.Plug{}, os.ErrNotExist
	}
	return fabric.Plug{Name: "eth0", MTU: 1450}, nil
}

// CheckSandbox implements netdriver.Containers.
func (c *Containers) CheckSandbox(sandbox string) error {
	if !c.Alive[sandbox] {
		return os.ErrNotExist
	}
	return nil
}
